# What a run of the fleet has to show, and what differs in it where only one thing does: tables in Markdown.
#
#   awk -f ci/csv.awk -f ci/fleet.awk since.tsv findings.tsv ci/fleet.pairs ci/fleet.expected cells.csv results.csv
#
# since.tsv: check, since when. findings.tsv: check, layer, failing hosts, engines and images, each list in bars (|a|b|).
# Exits with 1 where a cell that was planned did not run, and where the run does not show what ci/fleet.expected says.

BEGIN { FS = "\t" }

function complain(text) { print "error: " text >"/dev/stderr"; bad = 1 }
function column(name) { return f[at[file, name]] }

# Whether a finding gives a failure of this check in this cell to a layer that fits.
function attributed(cell, check, layer,   i, part, image) {
    split(cell, part, ":")
    image = part[3] == "-" ? "no image" : part[3]
    for (i = 1; i <= findings; i++)
        if (found[i] == check && layers[i] ~ ("^(" layer ")$") && index(hosts[i], "|" part[1] "|") &&
            index(engines[i], "|" part[2] "|") && index(images[i], "|" image "|")) return 1
    return 0
}

# Whether two large numbers differ by less than a tenth, as limits do that follow the memory of a machine.
function near(one, other,   m, n, x, y) {
    m = split(one, x, " "); n = split(other, y, " ")
    if (m != n || x[m] !~ /^[0-9]+$/ || y[n] !~ /^[0-9]+$/ || x[m] < 1000) return 0
    return (x[m] - y[n]) ^ 2 < (x[m] / 10) ^ 2
}

FNR == 1 { file++ }
/^#/ || $0 == "" { next }
file == 1 { since[$1] = $2; next }
file == 2 { findings++; found[findings] = $1; layers[findings] = $2; hosts[findings] = $3; engines[findings] = $4; images[findings] = $5; next }
file == 3 { pairs++; title[pairs] = $1; left[pairs] = $2; right[pairs] = $3; wanted[$2]; wanted[$3]; next }
file == 4 { rows++; cells[rows] = $1; checks[rows] = $2; answers[rows] = $3; layer[rows] = $4; next }
FNR == 1 { csv($0, f); for (i in f) at[file, f[i]] = i; next }
file == 5 {
    csv($0, f)
    planned_out = column("verdict") == "skip" && column("reason") ~ /^(excluded: |this virtual machine is a kernel only)/
    if (column("role") != "cell" || planned_out) next
    ran++
    if (column("verdict") ~ /^(skip|error|miss)$/ || column("fault") != "")
        complain(column("cell") " did not run: " column("verdict") " " column("fault") column("reason"))
    there[column("cell")]
    next
}
{
    csv($0, f)
    if (column("role") != "cell") next
    cell = column("host") ":" column("engine") ":" column("image"); check = column("check")
    said = column("value") != "" ? column("value") : column("saw")
    if (cell in wanted) { answer[cell, check] = said; known[check] }
    for (i = 1; i <= rows; i++) {
        if (check !~ ("^(" checks[i] ")$") || cell !~ ("^(" cells[i] ")$")) continue
        seen[i]++
        if ((column("outcome") " " said) !~ ("^(" answers[i] ")$"))
            complain(cell " " check " is `" column("outcome") " " said "` and not `" answers[i] "`")
        else if (layer[i] != "" && !attributed(cell, check, layer[i]))
            complain(cell " " check ": no finding gives it to `" layer[i] "`")
    }
}
END {
    if (!ran) complain("no cells")
    for (i = 1; i <= rows; i++) {
        asked = 0
        for (cell in there) if (cell ~ ("^(" cells[i] ")$")) asked = 1
        # A part of the fleet ran: what is said of the rest is not asked.
        if (asked && !seen[i]) complain("nothing is known of " checks[i] " in " cells[i])
    }
    for (i = 1; i <= pairs; i++) {
        if (!(left[i] in there) || !(right[i] in there)) continue
        printf "\n## %s\n\n| checks | `%s` | `%s` |\n|---|---|---|\n", title[i], left[i], right[i]
        split("", list); differing = 0
        for (check in known) {
            one = answer[left[i], check]; other = answer[right[i], check]
            # Clocks, samples and sizes differ between any two.
            if (one == other || one == "" || other == "" || one == "samples" || check ~ /^bench\./ || near(one, other)) continue
            differing++
            key = "| `" substr(one, 1, 80) "` | `" substr(other, 1, 80) "` |"; gsub(/\n/, " ", key)
            name = "`" check "`" (check in since ? " (" since[check] ")" : "")
            list[key] = list[key] (list[key] == "" ? "" : "\n") name
        }
        for (key in list) {
            m = split(list[key], names, "\n")
            for (j = 2; j <= m; j++) for (k = j; k > 1 && names[k] < names[k - 1]; k--) { t = names[k]; names[k] = names[k - 1]; names[k - 1] = t }
            text = names[1]
            for (j = 2; j <= m; j++) text = text ", " names[j]
            print "| " text " " key | "LC_ALL=C sort"
        }
        close("LC_ALL=C sort")
        if (!differing) complain(title[i] ": nothing differs between " left[i] " and " right[i])
    }
    exit bad
}
