#!/bin/sh
# SPDX-License-Identifier: MIT
#
# completion_test.sh PARTITA: bash completes nouns, verbs, options and their words, as the tables
# have them; zsh reads the same, where there is a zsh.
set -eu

partita=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
PARTITA_HOST=unix:$tmp/none
export PARTITA_HOST
"$partita" completion bash >"$tmp/bash"
command -v bash >/dev/null || { echo 'there is no bash'; exit 77; }

# completes EXPECTED WORD...: the last word is completed to that.
completes() {
	expected=$1
	shift
	got=$(bash -c '
		source "$1"
		shift
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
		_partita
		echo ${COMPREPLY[@]}' bash "$tmp/bash" "$partita" "$@")
	[ "$got" = "$expected" ] || {
		echo "\"$*\" is completed to \"$got\", not \"$expected\"" >&2
		exit 1
	}
}

completes 'disk' di
completes 'vm' vm
completes 'restart resume reset remove rename register' vm re
completes '--memory-minimum --memory-maximum --memory-maximum-per-numa-node' vm create --memory-m
completes 'turn-off' vm create --automatic-stop t
completes 'running resuming resetting' vm list --state r
completes 'completed cancelled' job list --state c
completes '--operation' role set x --op
completes '--stop-machines' host down --s
completes 'snapshot' disk sn
completes '--seconds' disk freeze --sec
completes '' vm start w

# every option of every verb is there
"$partita" completion options >"$tmp/options"
[ "$(wc -l <"$tmp/options")" -gt 300 ]
while read -r noun verb option; do
	grep -q "^	$noun:$verb:-\*).*[ ']$option " "$tmp/bash" || {
		echo "$noun $verb is not completed to $option" >&2
		exit 1
	}
done <"$tmp/options"

# names come from the service's answer as --json prints it
cat >"$tmp/partita" <<'END'
#!/bin/sh
printf '[\n  {\n    "id": "1",\n    "name": "web",\n    "state": "off"\n  },\n  {\n    "name": "we$(x)"\n  },\n'
printf '  {\n    "name": "web2"\n  }\n]\n'
END
chmod +x "$tmp/partita"
partita=$tmp/partita
completes 'web web2' vm start we

if command -v zsh >/dev/null; then
	"$1" completion zsh >"$tmp/zsh"
	zsh -n "$tmp/zsh"
fi
