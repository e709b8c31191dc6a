"""Makes keys and tokens as an issuer does, with the client `PyJWT` of PyPI, which reads back what it made.

Usage: issuer.py ISS AUDIENCE
Prints {"keys": {"old": JWKS, "new": JWKS}, "tokens": {NAME: TOKEN}, "flood": [TOKEN, ...]}.
"""

import base64
import hashlib
import hmac
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISS, AUDIENCE = sys.argv[1:]
NOW = int(time.time())
OLD = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEW = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm, key, kid):
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def claims(**changes):
    given = {"iss": ISS, "aud": AUDIENCE, "sub": "ann", "groups": ["parents"], "iat": NOW, "exp": NOW + 900, **changes}
    return {name: value for name, value in given.items() if value is not None}


def signed(key=OLD, algorithm="RS256", kid="old", **changes):
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": kid})


def with_public_key_as_secret():
    """What PyJWT refuses to make: a tag of HS256 whose secret is the public key."""
    pem = OLD.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    message = part({"alg": "HS256", "typ": "JWT", "kid": "old"}) + b"." + part(claims())
    tag = hmac.digest(pem, message, hashlib.sha256)
    return (message + b"." + base64.urlsafe_b64encode(tag).rstrip(b"=")).decode()


old = [jwk(RSAAlgorithm, OLD, "old"), jwk(OKPAlgorithm, EDWARDS, "edwards")]
tokens = {
    "admin": signed(),
    "pss": signed(algorithm="PS256"),
    "edwards": signed(EDWARDS, "EdDSA", "edwards"),
    "viewer": signed(groups=["kids"], sub="bob"),
    "confined": signed(groups=["guests"], sub="eve"),
    "nobody": signed(groups=["strangers"]),
    "new": signed(NEW, "ES256", "new"),
    "none": jwt.encode(claims(), None, algorithm="none", headers={"kid": "old"}),
    "confused": with_public_key_as_secret(),
    "audience": signed(aud="other"),
    "issuer": signed(iss=ISS + "/"),
    "expired": signed(exp=NOW - 120),
    "early": signed(nbf=NOW + 600),
    "unending": signed(exp=None),
    "forged": signed(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
}
# What it made reads back with the keys that it publishes.
for name, algorithm in (("admin", "RS256"), ("pss", "PS256"), ("edwards", "EdDSA")):
    kid = jwt.get_unverified_header(tokens[name])["kid"]
    key = jwt.PyJWK(next(key for key in old if key["kid"] == kid), algorithm=algorithm)
    assert jwt.decode(tokens[name], key, [algorithm], audience=AUDIENCE, issuer=ISS)["sub"] == "ann"

keys = {"old": {"keys": old}, "new": {"keys": old + [jwk(ECAlgorithm, NEW, "new")]}}
flood = [signed(NEW, "ES256", f"unknown-{number}") for number in range(60)]
print(json.dumps({"keys": keys, "tokens": tokens, "flood": flood}))
