"""What `serve deploy` does with a Serve config file, without the dashboard: `python -m tests.cluster.deploy`.

It waits until the cluster has the nodes that are asked for, and returns once the application runs.
"""

from __future__ import annotations

import json
import sys

import ray
from ray import serve as ray_serve

from serve.ray.cluster import application
from tests.cluster.cluster import wait_until


def main(address: str, nodes: int, config: str) -> None:
    """Deploy the application of a config in its JSON form."""
    ray.init(address=address, log_to_driver=False)
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) >= nodes, f"{nodes} nodes", 60)
    given = json.loads(config)
    [described] = given["applications"]
    ray_serve.start(proxy_location=given["proxy_location"], http_options=given["http_options"])
    ray_serve.run(
        application(described["args"]), name=described["name"], route_prefix=described["route_prefix"]
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
