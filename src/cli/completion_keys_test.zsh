#!/usr/bin/env zsh
# SPDX-License-Identifier: MIT
#
# completion_keys_test.zsh FOLDER...: types into a bash and a zsh on pseudo-terminals, which have
# loaded their completions as an installation has them (partita.bash and _partita, in the folders),
# and presses keys. What then stands on the line is what a person would see.
emulate -R zsh
setopt err_exit extended_glob
zmodload zsh/zpty

tmp=$(mktemp -d)
cleanup() {
	zpty -d 2>/dev/null || :
	rm -rf $tmp
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

partita=$1 folder=$2
mkdir $tmp/bin $tmp/zsh $tmp/empty
ln -s ${partita:A} $tmp/bin/partita
touch $tmp/empty/one-file
export PATH=$tmp/bin:$PATH TERM=dumb COLUMNS=4000 PARTITA_HOST=unix:$tmp/none

# ^A completes all that fits onto the line, ^T tells what stands there.
cat >$tmp/bashrc <<END
PS1='ready> '
[ ! -e /usr/share/bash-completion/bash_completion ] || . /usr/share/bash-completion/bash_completion
. $folder/partita.bash
bind 'set enable-bracketed-paste off'
bind '"\C-a": insert-completions'
bind -x '"\C-t": echo "@@\$READLINE_LINE@@"'
END
cat >$tmp/zsh/.zshrc <<END
PS1='ready> '
unsetopt zle_bracketed_paste prompt_sp prompt_cr 2>/dev/null
fpath=($folder \$fpath)
autoload -Uz compinit && compinit -u -D
insert_all() { _main_complete; compstate[insert]=all }
zle -C insert-all complete-word insert_all
tell() { print -r -- "@@\$BUFFER@@" }
zle -N tell
bindkey '^A' insert-all
bindkey '^T' tell
END

# Reads until the pattern comes; what came is in $seen.
await() {
	local part
	integer tries=200
	seen=
	while (( tries-- )); do
		while zpty -rt shell part 2>/dev/null; do
			seen+=$part
			[[ $seen == $~1 ]] && return 0
		done
		sleep 0.05
	done
	print -u2 "$shell: waited in vain for $1; there was: ${(qqqq)seen}"
	exit 1
}

begin() {
	shell=$1
	shift
	zpty -b shell "cd $tmp/empty && stty columns 4000 && exec $*"
	await '*ready> *'
}

# completes LINE TYPED: typing that and ^A makes it that line.
completes() {
	zpty -w -n shell $2$'\C-a\C-t'
	await '*@@*@@*'
	local got=${${seen#*@@}%%@@*}
	got=${${got//[$'\r\n']/}%% #}
	if [[ $got != $1 ]]; then
		print -u2 "$shell: \"$2\" is completed to \"$got\", not \"$1\""
		exit 1
	fi
	zpty -w -n shell $'\C-u'
}

# the order is the shell's
all() {
	completes 'partita disk' 'partita di'
	completes 'partita disk snapshot' 'partita disk sn'
	completes 'partita vm create --automatic-stop turn-off' 'partita vm create --automatic-stop t'
	completes 'partita host down --stop-machines' 'partita host down --s'
	completes "$1" 'partita vm re'
	completes 'partita vm create --initrd one-file' 'partita vm create --initrd one'
	completes 'partita vm start w' 'partita vm start w'
}

begin bash "bash --noprofile --rcfile $tmp/bashrc -i"
all 'partita vm register remove rename reset restart resume'
zpty -d shell
begin zsh "env ZDOTDIR=$tmp/zsh zsh -d -i"
all 'partita vm register remove rename reset restart resume'
print 'bash and zsh complete'
