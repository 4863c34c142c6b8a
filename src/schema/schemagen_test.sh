#!/bin/sh
# SPDX-License-Identifier: MIT
#
# schemagen_test.sh SCHEMAGEN: what schemagen must not take, with a part of what it says.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

# A schema with these properties and definitions is refused with these words.
refuse() {
	cat >"$tmp/schema" <<-END
		{"c_name": "thing", "type": "object", "additionalProperties": false,
		 "properties": {$2}, "\$defs": {${3:-}}}
	END
	refuse_file "$1"
}

refuse_file() {
	if "$schemagen" "$tmp/schema" "$tmp/h" "$tmp/c" 2>"$tmp/said"; then
		echo "taken, although: $1"
	elif ! grep -qF -- "$1" "$tmp/said" || [ -e "$tmp/h" ]; then
		echo "expected: $1; said: $(cat "$tmp/said")"
	else
		return
	fi
	failed=1
}

schemagen=$1
number='"type": "integer", "minimum": 0, "maximum": 9'
object='"type": "object", "additionalProperties": false'
refuse '"maxlength" is not in our subset' '"a": {"type": "string", "maxlength": 3}'
refuse '"maximum" does not belong to a string' '"a": {"type": "string", "maximum": 3}'
refuse '"maxLength" is missing' '"a": {"type": "string"}'
refuse '"maxLength" must be 1 to' '"a": {"type": "string", "maxLength": 0}'
refuse '"minLength" must be 0 to' '"a": {"type": "string", "maxLength": 1, "minLength": 2}'
refuse 'needs "minimum" and "maximum"' '"a": {"type": "integer", "minimum": 0}'
refuse '"minimum" is more than' '"a": {"type": "integer", "minimum": 1, "maximum": 0}'
refuse '"minimum" must be an integer' '"a": {"type": "integer", "minimum": 0.5, "maximum": 1}'
refuse 'a: must be required or have a default' "\"a\": {$number}"
refuse 'must be required or have a default' '"a": {"type": "boolean"}'
refuse 'the default is not a value' "\"a\": {$number, \"default\": 10}"
refuse 'the default is not a value' '"a": {"type": "boolean", "default": 0}'
refuse 'the default is not a value' '"a": {"type": "string", "enum": ["x"], "default": "y"}'
refuse 'the default is not a value' '"a": {"type": "string", "maxLength": 1, "default": "yy"}'
refuse '"enum" must be an array of strings' '"a": {"type": "string", "enum": [1]}'
refuse '"type" must be' '"a": {"type": "null"}'
refuse '"type" must be' '"a": {}'
refuse 'must be an object with "type" or "$ref"' '"a": 3'
refuse '"default" does not belong to a array' \
	"\"a\": {\"type\": \"array\", \"maxItems\": 1, \"items\": {$number}, \"default\": []}"
refuse '"maxItems" is missing' "\"a\": {\"type\": \"array\", \"items\": {$number}}"
refuse 'an array of arrays' '"a": {"type": "array", "maxItems": 1, "items": {
	"type": "array", "maxItems": 1, "items": {"type": "string", "maxLength": 1}}}'
refuse '"A" is no name for C' '"A": {"type": "boolean", "default": true}'
refuse 'the name is taken' '"present": {"type": "boolean", "default": true}'
refuse 'hold no "*/"' '"a": {"type": "boolean", "default": true, "description": "*/"}'
refuse '$ref" must be #/$defs/NAME' '"a": {"$ref": "other.json"}'
refuse '#/$defs/b is not there' '"a": {"$ref": "#/$defs/b"}'
refuse '#/$defs/b is itself a reference' '"a": {"$ref": "#/$defs/b"}' '"b": {"$ref": "#/$defs/b"}'
refuse 'holds itself' '"a": {"$ref": "#/$defs/b"}' \
	"\"b\": {\"c_name\": \"b\", $object, \"properties\": {\"c\": {\"\$ref\": \"#/\$defs/b\"}}}"
refuse 'an object needs "c_name"' "\"a\": {$object, \"properties\": {}}"
refuse '"c_name": "b" is taken' \
	"\"a\": {\"c_name\": \"b\", $object, \"properties\": {\"x\": {\"type\": \"boolean\", \"default\": true}}},
	 \"c\": {\"c_name\": \"b\", $object, \"properties\": {\"x\": {\"type\": \"boolean\", \"default\": true}}}"
refuse '"additionalProperties": false' \
	'"a": {"c_name": "b", "type": "object", "properties": {}}'
refuse '{} is no default: it lacks "x"' '"a": {"$ref": "#/$defs/b", "default": {}}' \
	"\"b\": {\"c_name\": \"b\", $object, \"required\": [\"x\"], \"properties\": {\"x\": {$number}}}"
refuse '"required" names what is not' \
	"\"a\": {\"c_name\": \"b\", $object, \"required\": [\"y\"], \"properties\": {\"x\": {$number}}}"
refuse '"properties" must be' ''
echo '[' >"$tmp/schema" && refuse_file 'line 2, column'
echo '{"type": "boolean"}' >"$tmp/schema" && refuse_file 'the document must be an object'
cat >"$tmp/schema" <<-'end'
	{"c_name": "b", "type": "object", "additionalProperties": false, "properties": {
	"switch": {"type": "string", "maxLength": 1}, "switches": {"type": "string", "maxLength": 1}}}
end
"$schemagen" "$tmp/schema" "$tmp/h" "$tmp/c"
if ! grep -q 'char \*switch_;' "$tmp/h" || ! grep -q 'char \*switches;' "$tmp/h" ||
	! grep -q 'name = "switch"' "$tmp/c" || ! grep -q 'offsetof(struct b, switch_)' "$tmp/c"; then
	echo "a word of C is not named switch_"
	failed=1
fi
exit $failed
