#!/bin/sh
# Makes certificates for development: an authority of your own, a server's certificate and a client's.
#     sh certs.sh DIR [NAME...]
# In DIR are then the authority (ca.pem, ca.key), the server's certificate for the NAMEs (server.pem, server.key) and
# the client's (client.pem, client.key). A program that trusts ca.pem trusts both. Another run makes new ones by the
# same authority. Keep ca.key secret: who has it can vouch for any name.
#
# Needs the command openssl, 1.1.1 or later.
#
# SPDX-License-Identifier: MIT
set -eu

usage() {
    cat <<'END'
usage: certs.sh DIR [NAME...]
Makes in DIR: ca.pem, server.pem, client.pem, and a key for each (.key). An authority that is there is kept.
NAME: a host name, *.DOMAIN, or an IP address of the server. Default: localhost 127.0.0.1 ::1
END
}
fail() { printf 'certs.sh: %s\n' "$1" >&2; exit 1; }
misused() { printf 'certs.sh: %s\n' "$1" >&2; usage >&2; exit 2; }

case ${1-} in
    -h | --help) usage; exit ;;
    '') misused 'which directory?' ;;
    -*) misused "unknown option: $1" ;;
esac
dir=$1
shift
[ $# -gt 0 ] || set -- localhost 127.0.0.1 ::1

names=
for name; do
    case $name in
        '' | -* | *[!A-Za-z0-9.:*_-]*) misused "not a name: '$name' (letters beyond ASCII are written xn--...)" ;;
        *:*) san=IP:$name ;;
        *[!0-9.]*) san=DNS:$name ;;
        *) san=IP:$name ;; # digits and dots alone
    esac
    names=$names${names:+,}$san
done

command -v openssl >/dev/null || fail 'the command openssl is not installed'
mkdir -p -- "$dir" || fail "cannot make the directory $dir"
CDPATH='' cd -- "$dir"
umask 077
new=$(mktemp -d ./new.XXXXXX) || fail "cannot write in $dir"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

# The section [req] is there because openssl wants one; the others are the extensions.
leaf='basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid'
cat >"$new/conf" <<END
[req]
distinguished_name = subject
[subject]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
$leaf
extendedKeyUsage = serverAuth
subjectAltName = $names
[client]
$leaf
extendedKeyUsage = clientAuth
END

# openssl tells its progress and its errors alike: shown if it fails.
quietly() { "$@" >"$new/log" 2>&1 || { cat "$new/log" >&2; fail "openssl failed: $2"; }; }

# request NAME OPTIONS...: a new key, and with -x509 a certificate, else a request for one.
request() {
    name=$1
    shift
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$new/$name.key"
    quietly openssl req -new -config "$new/conf" -key "$new/$name.key" -subj "/CN=Development $name" -sha256 "$@"
}

# keep NAME: puts it in its place; all but the key may be read by other users.
keep() {
    chmod 644 "$new/$1.pem"
    mv "$new/$1.key" "$new/$1.pem" .
}

if [ -e ca.pem ] && [ -e ca.key ]; then
    openssl x509 -in ca.pem -noout -checkend 0 >/dev/null || fail "$dir/ca.pem has expired: remove it and ca.key"
elif [ -e ca.pem ] || [ -e ca.key ]; then
    fail "$dir has one of ca.pem and ca.key: remove it, or bring the other one"
else
    request ca -x509 -extensions ca -days 3650 -out "$new/ca.pem"
    keep ca
fi
for name in server client; do
    request "$name" -out "$new/request"
    quietly openssl x509 -req -in "$new/request" -CA ca.pem -CAkey ca.key -CAserial "$new/serial" -CAcreateserial \
        -extfile "$new/conf" -extensions "$name" -days 825 -sha256 -out "$new/$name.pem"
    keep "$name"
done
