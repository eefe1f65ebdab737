#!/bin/sh
# Publishes an order, and prints a token with which a browser may subscribe to orders for an hour.
set -eu

# The secret is in no list of processes: curl reads it from its standard input.
printf 'user = "%s:%s"\n' "$KEY_ID" "$KEY_SECRET" |
  curl --config - --silent --show-error --fail-with-body --retry 3 --output /dev/null \
    -H 'Content-Type: application/json' -H 'Idempotency-Key: order-7' -d '{"id":7}' \
    "$PANDAPUSH_URL/channel/$APP_ID/private/orders"

encode() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

header=$(printf '{"alg":"HS256","typ":"JWT"}' | encode)
claims=$(printf '{"keyId":"%s","channel":"/%s/private/orders","sub":true,"exp":%s}' \
  "$KEY_ID" "$APP_ID" "$(($(date +%s) + 3600))" | encode)
signature=$(printf '%s.%s' "$header" "$claims" |
  openssl dgst -sha256 -hmac "$KEY_SECRET" -binary | encode)
echo "$header.$claims.$signature"
