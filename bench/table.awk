# SPDX-License-Identifier: MIT
#
# table.awk: makes the table and the JSON rows of what the lab printed. Variables: `rows`, a file
# with the rows that were wanted; `json`, the rows kept so far, one a line; `new`, the file to write;
# `machine`, a line that says where. Exits with 1 if a bound is missed or a result is missing.

BEGIN {
	while ((getline line <rows) > 0) {
		split(line, f, "|")
		order[++count] = f[1]
		unit[f[1]] = f[2]; rule[f[1]] = f[3]; bound[f[1]] = f[4]; goal[f[1]] = f[5]
		what[f[1]] = f[6]
	}
}

# Wall times: of the line that begins and the one that ends what is measured.
$2 == "#" && $3 == "session" { label = $4; begun[label, "init"] = $1 }
$2 == "mark" && $8 == "partita-guest:" && $9 == "init" { wall[label, "init"] = $1 - begun[label, "init"] }
$2 == "mark" && $8 == "guest_io:" && $9 == "begin" { begun[label, $10] = $1 }
$2 == "mark" && $8 == "guest_io:" && $9 == "end" { wall[label, $10] = $1 - begun[label, $10] }

$2 == "#" && $3 == "result" {
	id = $4; ours[id] = $5; peer_name[id] = $6; peer[id] = $7
	if ($10 != "") {
		wall_ours[id] = wall[$8, $10]
		wall_peer[id] = wall[$9, $10]
	}
}

function number(v) {
	return v == "" || v == "-" ? "null" : v + 0 ""
}

function met(id,   value) {
	if (rule[id] == "-")
		return "null"
	value = rule[id] ~ /^ours/ ? ours[id] : ratio[id]
	if (rule[id] ~ /<=$/)
		return value <= bound[id] + 0 ? "true" : "false"
	return value >= bound[id] + 0 ? "true" : "false"
}

function json_row(id) {
	return sprintf("{\"id\": \"%s\", \"what\": \"%s\", \"ours\": %s, \"peer\": %s, " \
		"\"peer_name\": \"%s\", \"unit\": \"%s\", \"ratio\": %s, \"bound\": %s, " \
		"\"goal\": %s, \"rule\": \"%s\", \"met\": %s, \"wall_ours\": %s, " \
		"\"wall_peer\": %s, \"machine\": \"%s\"}", id, what[id], number(ours[id]),
		number(peer[id]), peer_name[id], unit[id], number(ratio[id]), number(bound[id]),
		number(goal[id]), rule[id], met(id), number(wall_ours[id]), number(wall_peer[id]),
		machine)
}

function table_row(id,   mark) {
	mark = met(id) == "false" ? "  MISSED" : ""
	printf "%-20s %10.4g %10.4g %-12s %-7s", id, ours[id], peer[id], peer_name[id], unit[id]
	printf " %6s %-14s", ratio[id] == "" ? "-" : sprintf("%.3f", ratio[id]),
		rule[id] == "-" ? "" : rule[id] " " bound[id]
	if (wall_ours[id] != "")
		printf " %5.1f %5.1f s", wall_ours[id], wall_peer[id]
	print mark
}

END {
	print machine
	printf "%-20s %10s %10s %-12s %-7s %6s %-14s  wall, ours and peer\n", "row", "ours", "peer",
		"peer's name", "unit", "ratio", "bound"
	for (i = 1; i <= count; i++) {
		id = order[i]
		if (ours[id] == "" || peer[id] == "") {
			print id ": no result  MISSED"
			failed = 1
			continue
		}
		if (peer[id] > 0)
			ratio[id] = ours[id] / peer[id]
		table_row(id)
		fresh[id] = json_row(id)
		if (met(id) == "false")
			failed = 1
	}
	while ((getline line <json) > 0) {
		if (!match(line, /"id": "[^"]*"/))
			continue
		id = substr(line, RSTART + 7, RLENGTH - 8)
		sub(/,$/, "", line)
		if (!(id in fresh))
			fresh[id] = line
	}
	printf "[" >new
	for (id in fresh) {
		printf "%s\n%s", comma, fresh[id] >new
		comma = ","
	}
	print "\n]" >new
	exit failed
}
