"""The container's healthcheck: 0 where the role's HTTP server answers 200 (EYELINE_HEALTH_URL; else the gateway's /healthz)."""

import os
import sys
import urllib.error
import urllib.request

url = os.environ.get("EYELINE_HEALTH_URL", "http://127.0.0.1:8080/healthz")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the container's own server needs no proxy
try:
    with opener.open(url, timeout=4) as answer:
        status = answer.status
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"{url}: {error}")
sys.exit(None if status == 200 else f"{url}: HTTP {status}")
