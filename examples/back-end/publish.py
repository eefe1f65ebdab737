"""Publishes an order, and prints a token with which a browser may subscribe to orders for an hour."""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request

URL = os.environ["PANDAPUSH_URL"]
APP_ID = os.environ["APP_ID"]
KEY_ID = os.environ["KEY_ID"]
KEY_SECRET = os.environ["KEY_SECRET"]


def publish(channel, data, idempotency_key, attempts=3):
    """Returns when the server has taken it for delivery.

    With the same key, what is sent again within five minutes is delivered once.
    """
    basic = base64.b64encode(f"{KEY_ID}:{KEY_SECRET}".encode()).decode()
    request = urllib.request.Request(
        f"{URL}/channel/{APP_ID}/{channel}",
        # As the examples in other languages write it: the key stands for this very text.
        data=json.dumps(data, separators=(",", ":")).encode(),
        headers={
            "Authorization": f"Basic {basic}",
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key,
        },
    )
    for attempt in range(1, attempts + 1):
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502, 503, 504) or attempt == attempts:
                raise RuntimeError(error.read().decode()) from error
            time.sleep(float(error.headers.get("Retry-After", attempt)))
        except OSError:
            if attempt == attempts:
                raise
            time.sleep(attempt)


def generate_token(channel, *, sub=False, pub=False, seconds=3600, presence=None):
    """A JWT, signed with HS256."""
    claims = {"keyId": KEY_ID, "channel": f"/{APP_ID}/{channel}", "sub": sub, "pub": pub}
    claims["exp"] = int(time.time()) + seconds
    if presence is not None:
        claims["presence"] = presence
    signed = f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{encode(claims)}"
    signature = hmac.new(KEY_SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{to_text(signature)}"


def encode(value):
    return to_text(json.dumps(value).encode())


def to_text(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


publish("private/orders", {"id": 7}, idempotency_key="order-7")
print(generate_token("private/orders", sub=True))
