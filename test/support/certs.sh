#!/bin/sh
# Makes the certificates of the tests, good ones and bad ones, in an empty directory:
#     sh certs.sh DIR
# NAME.pem is a certificate and the intermediate ones that a peer needs, NAME.key its key. Servers are localhost,
# 127.0.0.1 and ::1 unless said otherwise, and issued by `ca`. works/ holds what only this script needs.
# See certs.lua; needs openssl 1.1.1 or later.
#
# SPDX-License-Identifier: MIT
set -eu

CDPATH='' cd -- "$1"
umask 077
mkdir works
: >works/index
: >works/index.attr

# `openssl ca` alone sets any dates. All authorities share its database: only certificates of `ca` are revoked, so
# that the CRLs are right. These settings stand in for those of the system, which may forbid SHA-1.
cat >works/conf <<'END'
[req]
distinguished_name = subject
[subject]
[ca]
default_ca = authority
[authority]
database = works/index
new_certs_dir = works
unique_subject = no
rand_serial = yes
policy = policy
default_md = sha256
default_days = 30
default_crl_days = 30
crl_extensions = crl
[policy]
commonName = supplied
[crl]
authorityKeyIdentifier = keyid
END
export OPENSSL_CONF="$PWD/works/conf"

# The extensions of what may be issued.
leaf="basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature"
server="$leaf
extendedKeyUsage = serverAuth
subjectAltName"
local='DNS:localhost, IP:127.0.0.1, IP:::1'
client="$leaf
extendedKeyUsage = clientAuth"
authority='keyUsage = critical, keyCertSign, cRLSign
basicConstraints = critical, CA:TRUE' # last, so that a limit may follow

p256='ec -pkeyopt ec_paramgen_curve:P-256'
algorithm=$p256

# issue ISSUER NAME EXTENSIONS [OPTIONS of openssl ca...]: NAME.pem and NAME.key, signed by ISSUER or by itself.
issue() {
    issuer=$1 name=$2
    printf '%s\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n' "$3" >works/extensions
    shift 3
    # shellcheck disable=SC2086 # an algorithm and its options
    openssl req -new -newkey $algorithm -nodes -keyout "$name.key" -subj "/CN=$name" -out works/request
    if [ "$issuer" = "$name" ]; then set -- -selfsign "$@"; else set -- -cert "$issuer.pem" "$@"; fi
    openssl ca -batch -notext -in works/request -keyfile "$issuer.key" -extfile works/extensions \
        -out "$name.pem" "$@"
}

# Authorities: two roots, and intermediate ones. `constrained_ca` may only vouch for example.org; below `inter`
# there may be no other, which `deeper` disregards.
issue ca ca "$authority"
issue other_ca other_ca "$authority"
issue ca inter "$authority, pathlen:0"
issue inter deeper "$authority"
issue ca constrained_ca "$authority
nameConstraints = critical, permitted;DNS:example.org"

# Good servers.
issue ca server "$server = $local"
issue ca server2 "$server = $local"
algorithm=rsa:2048
issue ca server_rsa "$server = $local"
algorithm=$p256
cat server.pem server.key >combined.pem
issue inter no_inter "$server = $local" # its chain lacks inter.pem
cat no_inter.pem inter.pem >by_inter.pem
cp no_inter.key by_inter.key

# Servers with other names. Only a whole first label may be a wildcard, and not below a top-level domain.
issue ca example "$server = DNS:example.org"
issue ca other "$server = DNS:other.example"
issue ca wrong_host "$server = DNS:elsewhere.example"
issue ca wild "$server = DNS:*.example.org"
issue ca wild_deep "$server = DNS:*.*.example.org"
issue ca wild_partial "$server = DNS:w*.example.org"
issue ca wild_middle "$server = DNS:www.*.example.org"
issue ca wild_top "$server = DNS:*.org"
issue ca xn "$server = DNS:xn--bcher-kva.example"
issue ca wild_xn "$server = DNS:*.xn--bcher-kva.example"
issue ca ip_as_dns "$server = DNS:127.0.0.1"
issue ca cn_only "$leaf
extendedKeyUsage = serverAuth" -subj /CN=localhost

# Clients, and a server's certificate to be refused as a client's.
issue ca client "$client"
issue other_ca client2 "$client"
issue ca server_only_eku "$server = $local"
openssl pkey -in client.key -aes256 -passout pass:secret -out encrypted.key

# Bad servers: by date, by issuer, by purpose, by strength.
year=$(date -u +%Y)
issue ca expired "$server = $local" -startdate $((year - 2))0101000000Z -enddate $((year - 1))0101000000Z
issue ca expired_client "$client" -startdate $((year - 2))0101000000Z -enddate $((year - 1))0101000000Z
issue ca not_yet "$server = $local" -startdate $((year + 2))0101000000Z -enddate $((year + 3))0101000000Z
issue self_signed self_signed "$server = $local"
issue other_ca wrong_ca "$server = $local"
issue server not_a_ca "$server = $local" # by a certificate that may not issue any
cat server.pem >>not_a_ca.pem
issue constrained_ca constrained "$server = $local"
cat constrained_ca.pem >>constrained.pem
issue constrained_ca constrained_ok "$server = DNS:www.example.org"
cat constrained_ca.pem >>constrained_ok.pem
issue deeper pathlen "$server = $local"
cat deeper.pem inter.pem >>pathlen.pem
issue ca bad_purpose "$client
subjectAltName = $local"
issue ca sha1 "$server = $local" -md sha1
algorithm=rsa:1024
issue ca rsa1024 "$server = $local"
algorithm=$p256

# Files that are no certificate with its key.
echo 'There is no certificate here.' >garbage.pem
cp server.pem key_mismatch.pem
cp client.key key_mismatch.key

# Revocation. 1.1.1 cannot set the dates of a CRL: there it expires within a second of now.
revocations() { openssl ca -gencrl -cert ca.pem -keyfile ca.key "$@"; }
issue ca revoked "$server = $local"
issue ca revoked_client "$client"
revocations -out crl_empty.pem
revocations -crl_lastupdate $((year - 2))0101000000Z -crl_nextupdate $((year - 1))0101000000Z -out crl_expired.pem ||
    revocations -crlsec 1 -out crl_expired.pem
openssl ca -cert ca.pem -keyfile ca.key -revoke revoked.pem
openssl ca -cert ca.pem -keyfile ca.key -revoke revoked_client.pem
revocations -out crl.pem

# What a server staples.
status() {
    openssl ocsp -index works/index -CA ca.pem -rsigner ca.pem -rkey ca.key -ndays 7 -no_nonce \
        -issuer ca.pem -cert "$1.pem" -respout "$2.der"
}
status server ocsp
status revoked ocsp_revoked
