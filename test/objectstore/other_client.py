"""Another client of object stores, of Python's own library alone: what it reads and writes is what anybody would.

usage: other_client.py ENDPOINT REGION ACCESS SECRET  get BUCKET KEY | put BUCKET KEY | list BUCKET PREFIX | make BUCKET | uploads BUCKET
What is got goes to stdout, what is put comes from stdin; `list` says a line of JSON for each object.
"""
import datetime, hashlib, hmac, http.client, json, sys, urllib.parse
import xml.etree.ElementTree as ET

endpoint, region, access, secret, act, bucket, *rest = sys.argv[1:]
host = urllib.parse.urlsplit(endpoint).netloc


def ask(method, path, query=(), body=b""):
    words = "&".join(f"{urllib.parse.quote(k, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for k, v in sorted(query))
    path = urllib.parse.quote(path, safe="/-_.~")
    at = datetime.datetime.utcnow().strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": at}
    names = ";".join(sorted(headers))
    canonical = "\n".join([method, path, words, *(f"{n}:{headers[n]}" for n in sorted(headers)), "", names, digest])
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, path + ("?" + words if words else ""), body=body, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        sys.exit(f"{answer.status} {content.decode(errors='replace')}")
    return content


def plain(tag):
    return tag.split("}")[-1]


if act == "make":
    ask("PUT", f"/{bucket}")
elif act == "get":
    sys.stdout.buffer.write(ask("GET", f"/{bucket}/{rest[0]}"))
elif act == "put":
    ask("PUT", f"/{bucket}/{rest[0]}", body=sys.stdin.buffer.read())
elif act == "list":
    token = None
    while True:
        query = [("list-type", "2"), ("prefix", rest[0])] + ([("continuation-token", token)] if token else [])
        tree = ET.fromstring(ask("GET", f"/{bucket}", query))
        fields = {plain(child.tag): child.text for child in tree}
        for child in tree:
            if plain(child.tag) == "Contents":
                found = {plain(item.tag): item.text for item in child}
                print(json.dumps({"key": found["Key"], "bytes": int(found["Size"])}))
        token = fields.get("NextContinuationToken")
        if fields.get("IsTruncated") != "true":
            break
elif act == "uploads":
    tree = ET.fromstring(ask("GET", f"/{bucket}", [("uploads", "")]))
    for child in tree:
        if plain(child.tag) == "Upload":
            print(next(item.text for item in child if plain(item.tag) == "Key"))
