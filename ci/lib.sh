# shellcheck shell=bash
# Sourced by the scripts beside it, never run. Sets strict mode, the repository's root as working directory, and the
# few words the scripts share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${CI:-}" = true ]; then
    # Built once and thrown away: half the disk, a good part of the time.
    export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only
fi

# Where test root file systems are kept between runs.
# shellcheck disable=SC2034 # for the script that sources this
FIXTURES=${ABICUS_FIXTURES:-${XDG_CACHE_HOME:-$HOME/.cache}/abicus/fixtures}

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# step NAME COMMAND…: says what begins, runs it, says how long it took or that it failed.
step() {
    local name=$1 began=$SECONDS status=0
    shift
    say "$name"
    "$@" || status=$?
    if [ "$status" -ne 0 ]; then
        printf 'error: %s failed with status %s after %ss\n' "$name" "$status" "$((SECONDS - began))" >&2
        return "$status"
    fi
    note "$name: $((SECONDS - began))s"
}

# A docker daemon answers on the socket the docker client would use by default. The client itself is not needed: the
# driver speaks the API. Perl because it is the one language that every Debian and Ubuntu base has.
docker_answers() {
    local endpoint=${DOCKER_HOST:-unix:///var/run/docker.sock}
    case $endpoint in
    unix://*)
        perl -MIO::Socket::UNIX -e '
            alarm 5;
            my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1;
            print $s "GET /_ping HTTP/1.0\r\n\r\n";
            my $line = <$s> // "";
            exit($line =~ m{^HTTP/1\.[01] 200} ? 0 : 1);' "${endpoint#unix://}" 2>/dev/null
        ;;
    *) command -v docker >/dev/null && docker version >/dev/null 2>&1 ;;
    esac
}
