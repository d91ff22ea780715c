# Where a must or should check fails under one engine and passes under another: a table in Markdown.
#
#   awk -v engines='docker podman …' -f ci/csv.awk -f ci/differences.awk ci/differences.known cells.csv results.csv
#
# Checks with the same answers share a row. What differs from the first engine has to be explained by a line of the first
# file (engine, pattern of checks, why; tabs between); exits with 1 where something is not, or where a line explains nothing.

# Why this engine may fail this check, or nothing.
function known(engine, check,   i) {
    for (i = 1; i <= reasons; i++)
        if (who[i] == engine && check ~ ("^(" what[i] ")$")) { used[i] = 1; return why[i] }
    return ""
}

FNR == 1 { file++ }
file == 1 {
    if ($0 ~ /^#/ || $0 == "") next
    reasons++; split($0, part, "\t"); who[reasons] = part[1]; what[reasons] = part[2]; why[reasons] = part[3]
    next
}
FNR == 1 { csv($0, head); for (i in head) at[file, head[i]] = i; next }
file == 2 {
    csv($0, f)
    if (f[at[2, "role"]] == "cell") vector[f[at[2, "engine"]]] = f[at[2, "vector"]]
    next
}
{
    csv($0, f)
    key = f[at[3, "vector"]] SUBSEP f[at[3, "check"]]
    outcome[key] = f[at[3, "outcome"]]
    saw[key] = f[at[3, "saw"]] (f[at[3, "number"]] == "" ? "" : " " f[at[3, "number"]])
    if (f[at[3, "saw"]] == "value") saw[key] = f[at[3, "value"]]
    requirement[f[at[3, "check"]]] = f[at[3, "requirement"]]
}
END {
    n = split(engines, engine, " ")
    for (i = 1; i <= n; i++) if (vector[engine[i]] == "") { print "no cell of " engine[i] >"/dev/stderr"; exit 2 }
    printf "| checks |"; for (i = 1; i <= n; i++) printf " %s |", engine[i]
    printf " why |\n|---|"; for (i = 1; i <= n; i++) printf "---|"
    print "---|"
    for (check in requirement) {
        if (requirement[check] == "may") continue
        row = ""; because = ""; differ = 0; first = outcome[vector[engine[1]] SUBSEP check]
        for (i = 1; i <= n; i++) {
            key = vector[engine[i]] SUBSEP check
            if (outcome[key] == "fail") {
                row = row " ✗ |"
                if (first == "pass") {
                    differ = 1; reason = known(engine[i], check)
                    if (reason == "") { unknown = 1; reason = "**not explained** (" saw[key] ")" }
                    if (index(because, reason) == 0) because = because (because == "" ? "" : "; ") reason
                }
            } else row = row (outcome[key] == "pass" ? " ✓ |" : " – |")
        }
        if (!differ) continue
        row = row " " because " |"
        count[row]++
        list[row] = list[row] (list[row] == "" ? "" : "\n") check
    }
    for (row in count) {
        m = split(list[row], names, "\n")
        # awk has no sort of its own everywhere; the lists are short.
        for (i = 2; i <= m; i++) for (j = i; j > 1 && names[j] < names[j - 1]; j--) { t = names[j]; names[j] = names[j - 1]; names[j - 1] = t }
        text = ""
        for (i = 1; i <= m && i <= 6; i++) text = text (i > 1 ? ", " : "") "`" names[i] "`"
        if (m > 6) text = text " and " m - 6 " more"
        print "| " text " |" row | "LC_ALL=C sort"
    }
    close("LC_ALL=C sort")
    for (i = 1; i <= reasons; i++) if (!(i in used)) { unused = 1; print "explains nothing any more: " who[i] " " what[i] >"/dev/stderr" }
    exit unknown || unused
}
