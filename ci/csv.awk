# Splits a line of CSV into field[] and says how many there are (RFC 4180, without line breaks in a field).
function csv(line, field,   n, c, i, quoted, text) {
    if (line !~ /"/) return split(line, field, ",")
    n = 1; text = ""; quoted = 0; split("", field)
    for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        if (c == "\"") {
            if (quoted && substr(line, i + 1, 1) == "\"") { text = text c; i++ } else quoted = !quoted
        } else if (c == "," && !quoted) { field[n++] = text; text = "" }
        else text = text c
    }
    field[n] = text
    return n
}
