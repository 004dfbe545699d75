"""The files of k8s/: every object is one by Kubernetes' own schemas, whatever one names is there or in the guide's list
of what must exist first, and nothing is open that an operator has not opened."""

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from registry import __version__
from registry.cli.serve import exposes_plain_http
from registry.config import Config, load_config
from registry.runtime.drain import EXIT_TIMEOUT_S
from tests.support.kustomize import build, containers

ROOT = Path(__file__).parents[2]
BUILT = ["base", "overlays/two-regions/eu", "overlays/two-regions/us", "overlays/gateway", "overlays/secured"]
REGIONS = BUILT[1:3]
NOBODYS = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
"""RFC 5737: addresses for documentation."""
BUILT_IN = {"v1", "apps/v1", "networking.k8s.io/v1", "policy/v1"}
GUIDE = (ROOT / "docs" / "operate" / "kubernetes.md").read_text()
VERSIONS = ["1.27", kubernetes_validate.latest_version()]


@pytest.fixture(params=BUILT)
def directory(request):
    return ROOT / "k8s" / request.param


@pytest.fixture
def objects(directory):
    return build(directory)


def of_kind(objects, kind, name=None):
    return [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]


def pods(objects):
    """The labels and the first container of each pod."""
    found = []
    for one in objects:
        for number in range(one["spec"]["replicas"] if containers(one) else 0):
            labels = dict(one["spec"]["template"]["metadata"]["labels"])
            if one["kind"] == "StatefulSet":
                labels["statefulset.kubernetes.io/pod-name"] = f"{one['metadata']['name']}-{number}"
            found.append((labels, containers(one)[0]))
    return found


def instances(objects):
    [stateful_set] = of_kind(objects, "StatefulSet", "concord")
    return stateful_set["spec"]


def environment(objects):
    [container] = instances(objects)["template"]["spec"]["containers"]
    return container["env"]


def selected(objects, selector):
    """The containers of the pods that have all these labels."""
    found = [container for labels, container in pods(objects) if selector.items() <= labels.items()]
    return [one for number, one in enumerate(found) if one not in found[:number]]


def port_names(container):
    return {port["name"] for port in container["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_by_kubernetes_own_schemas(objects, version):
    for one in objects:
        if one["apiVersion"] in BUILT_IN:
            kubernetes_validate.validate(one, version, strict=True)


def test_names_are_unique(objects):
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))


def test_each_container_defines_each_variable_once(objects):
    """Server-side apply refuses a list whose keys repeat."""
    for one in objects:
        for container in containers(one):
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names)), (one["metadata"]["name"], names)


def test_services_policies_and_budgets_select_pods_that_exist_by_ports_that_they_have(objects):
    for service in of_kind(objects, "Service"):
        [container] = selected(objects, service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= port_names(container)
    for policy in of_kind(objects, "NetworkPolicy"):
        found = selected(objects, policy["spec"]["podSelector"]["matchLabels"])
        known = {port for one in found for there in one["ports"] for port in (there["name"], there["containerPort"])}
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= known
        assert all(rule["from"] for rule in policy["spec"]["ingress"]), "a rule without senders admits everybody"
        peers = [
            peer["podSelector"] for rule in policy["spec"]["ingress"] for peer in rule["from"] if "podSelector" in peer
        ]
        assert all(selected(objects, peer["matchLabels"]) for peer in peers)
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert selected(objects, budget["spec"]["selector"]["matchLabels"])


def test_probes_and_ingresses_name_ports_that_exist_and_only_v2_is_let_in(objects):
    for _, container in pods(objects):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for check in (container.get(probe) or {}).values():
                if isinstance(check, dict):
                    assert check["port"] in port_names(container)
    for ingress in of_kind(objects, "Ingress"):
        rules = ingress["spec"]["rules"]
        assert sorted(rule["host"] for rule in rules) == sorted(ingress["spec"]["tls"][0]["hosts"])
        for path in [path for rule in rules for path in rule["http"]["paths"]]:
            assert path["path"].startswith("/v2/")
            [service] = of_kind(objects, "Service", path["backend"]["service"]["name"])
            assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_a_gateway_lets_in_what_the_ingress_does(objects, directory):
    assert bool(of_kind(objects, "HTTPRoute")) == (directory.name == "gateway")
    for route in of_kind(objects, "HTTPRoute"):
        [parent] = route["spec"]["parentRefs"]
        [gateway] = of_kind(objects, "Gateway", parent["name"])
        [listener] = gateway["spec"]["listeners"]
        [ingress, *_] = of_kind(objects, "Ingress")
        assert [one["name"] for one in listener["tls"]["certificateRefs"]] == [ingress["spec"]["tls"][0]["secretName"]]
        assert route["spec"]["hostnames"] == [rule["host"] for rule in ingress["spec"]["rules"]]
        [rule] = route["spec"]["rules"]
        assert [match["path"] for match in rule["matches"]] == [{"type": "PathPrefix", "value": "/v2"}]
        assert rule["timeouts"]["request"] == "0s"
        [backend] = rule["backendRefs"]
        [service] = of_kind(objects, "Service", backend["name"])
        assert [port["port"] for port in service["spec"]["ports"]] == [backend["port"]]


def test_the_monitor_finds_one_service_that_has_its_port(objects, directory):
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [s for s in of_kind(objects, "Service") if wanted <= s["metadata"].get("labels", {}).items()]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    assert bool(of_kind(objects, "ServiceMonitor")) == (directory.parent.name == "two-regions")


def secret_of_the_guide():
    """What the operator is told to put into the secret, by key."""
    [command] = re.findall(r"create secret generic concord (?:.*\\\n)*.*", GUIDE)
    return dict(re.findall(r"--from-literal=([a-z-]+)=(\S+)", command))


def test_the_secret_is_the_one_that_the_guide_makes_and_is_nowhere_in_the_files(objects):
    made = {("concord", key) for key in secret_of_the_guide()}
    wanted = {
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for _, container in pods(objects)
        for entry in container.get("env", [])
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert wanted == made
    assert not of_kind(objects, "Secret")


def mounted_secrets(objects):
    """The secrets that instances have as files, by the directory."""
    pod = instances(objects)["template"]["spec"]
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    mounts = pod["containers"][0]["volumeMounts"]
    assert all(one["readOnly"] and "subPath" not in one for one in mounts if one["name"] in secrets)
    return {one["mountPath"]: secrets[one["name"]] for one in mounts if one["name"] in secrets}


def test_files_of_secrets_are_made_by_certificates_or_by_the_guide(objects, directory):
    certificates = {one["spec"]["secretName"]: one["spec"] for one in of_kind(objects, "Certificate")}
    literal = dict(re.findall(r"create secret generic (concord-admin) --from-literal=(\w+)=", GUIDE))
    held = {name: {"tls.crt", "tls.key", "ca.crt"} for name in certificates} | {
        name: {key} for name, key in literal.items()
    }
    places = mounted_secrets(objects)
    files = {entry["value"] for entry in environment(objects) if entry.get("value", "").startswith(("/tls", "/admin"))}
    assert bool(files) == (directory.name == "secured")
    for file in files:
        place, _, name = file.rpartition("/")
        assert name in held[places[place]], file
    [pod] = [
        one["spec"]["template"]["spec"] for one in objects if one["metadata"]["name"] == "concord" and containers(one)
    ]
    for volume in pod["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440 and pod["securityContext"]["fsGroup"]


def test_certificates_are_of_the_names_that_instances_and_the_ingress_use(objects, directory):
    certificates = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Certificate")}
    issuers = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Issuer")}
    assert bool(certificates) == bool(issuers) == (directory.name == "secured")
    if not certificates:
        return
    for spec in certificates.values():
        assert spec["issuerRef"]["kind"] == "Issuer" and spec["issuerRef"]["name"] in issuers
    assert certificates["concord-authority"]["isCA"]
    assert issuers["concord-authority"]["ca"]["secretName"] == certificates["concord-authority"]["secretName"]
    peers, clients = certificates["concord-peers"], certificates["concord-instances"]
    [advertised] = [one["value"] for one in environment(objects) if one["name"] == "CONCORD_ADVERTISE"]
    assert peers["dnsNames"] == [f"*.{instances(objects)['serviceName']}.concord.svc"]
    assert f".{instances(objects)['serviceName']}.$(POD_NAMESPACE).svc" in advertised
    assert {"server auth", "client auth"} <= {*peers["usages"]} and "client auth" not in clients["usages"]
    for ingress in of_kind(objects, "Ingress"):
        found = {
            name.partition("/")[2]: value
            for name, value in ingress["metadata"]["annotations"].items()
            if name.startswith("nginx.ingress.kubernetes.io/")
        }
        assert (found["backend-protocol"], found["proxy-ssl-verify"]) == ("HTTPS", "on")
        assert found["proxy-ssl-secret"] == f"concord/{clients['secretName']}"
        assert [found["proxy-ssl-name"]] == clients["dnsNames"]
        [service] = {
            path["backend"]["service"]["name"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]
        }
        assert clients["dnsNames"] == [f"{service}.concord.svc"]
    annotated = [
        one["metadata"]["annotations"].get("cert-manager.io/cluster-issuer") for one in of_kind(objects, "Ingress")
    ]
    assert len([one for one in annotated if one]) == 1, "several ingresses with one secret: one of them has it made"


def test_probes_speak_what_the_internal_listener_speaks(objects):
    [container] = instances(objects)["template"]["spec"]["containers"]
    has_tls = any(entry["name"] == "CONCORD_PEER_TLS_CERTIFICATE" for entry in container["env"])
    for probe, path in (("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        get = container[probe]["httpGet"]
        assert (get["path"], get["port"]) == (path, "internal")
        assert get.get("scheme", "HTTP") == ("HTTPS" if has_tls else "HTTP")


def test_what_a_setting_is_put_together_from_comes_before_it(objects):
    """Kubernetes leaves $(NAME) as it is where NAME comes later, and a patch puts its entries first."""
    for _, container in pods(objects):
        known = set()
        for entry in container.get("env", []):
            assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= known
            known.add(entry["name"])


def test_an_instance_takes_the_settings_and_advertises_its_own_name_and_the_internal_port(objects, monkeypatch):
    spec = instances(objects)
    given = {"POD_NAME": "concord-1", "POD_NAMESPACE": "concord"}
    secrets = secret_of_the_guide() | {"cluster-key": "k" * 64}
    for entry in environment(objects):
        if "value" in entry:
            given[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: given[match[1]], entry["value"])
        elif "secretKeyRef" in entry["valueFrom"]:
            given[entry["name"]] = secrets[entry["valueFrom"]["secretKeyRef"]["key"]]
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = {name for name in given if name.startswith("CONCORD_")} - {"CONCORD_URL", "CONCORD_CA"}
    assert settings <= {f"CONCORD_{field.upper()}" for field in Config.model_fields}
    config = load_config({}, None)
    [service] = of_kind(objects, "Service", spec["serviceName"])
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    ports = {port["name"]: port["containerPort"] for port in spec["template"]["spec"]["containers"][0]["ports"]}
    assert config.address[1] == ports["registry"] and config.internal_address[1] == ports["internal"]
    scheme = "https" if config.has_mutual_tls else "http"
    assert config.advertise == f"{scheme}://concord-1.{spec['serviceName']}.concord.svc:{ports['internal']}"
    assert config.instance_name == "concord-1"
    assert not exposes_plain_http(config), "TLS ends at the ingress"
    assert config.insecure != bool(config.tls_files)
    assert given["CONCORD_URL"] == f"{scheme}://127.0.0.1:{ports['internal']}"
    names = {labels.get("statefulset.kubernetes.io/pod-name") for labels, _ in pods(objects)}
    for url in config.redis:
        host, port = url.rpartition("@")[2].split(":")
        pod, service_name = host.split(".")
        [redis] = of_kind(objects, "Service", service_name)
        assert pod in names and redis["spec"]["clusterIP"] == "None"
        assert redis["spec"]["ports"][0]["port"] == int(port)
    [redis_pods] = of_kind(objects, "StatefulSet", "concord-redis")
    assert len(config.redis) == redis_pods["spec"]["replicas"]
    hosts = {rule["host"] for ingress in of_kind(objects, "Ingress") for rule in ingress["spec"]["rules"]}
    assert hosts == set(config.name)
    for site in of_kind(objects, "Service", "concord-site"):
        assert config.advertise_site.endswith(f":{site['spec']['ports'][0]['port']}")


def test_load_balancers_are_private_and_closed_until_an_operator_puts_ranges_in(objects):
    for service in of_kind(objects, "Service"):
        assert service["spec"].get("type", "ClusterIP") in ("ClusterIP", "LoadBalancer")
        if service["spec"].get("type") == "LoadBalancer":
            annotations = service["metadata"]["annotations"]
            assert annotations["service.beta.kubernetes.io/aws-load-balancer-scheme"] == "internal"
            assert annotations["networking.gke.io/load-balancer-type"] == "Internal"
            assert annotations["service.beta.kubernetes.io/azure-load-balancer-internal"] == "true"
            assert service["spec"]["externalTrafficPolicy"] == "Local"
            [policy] = of_kind(objects, "NetworkPolicy", service["metadata"]["name"])
            blocks = [peer["ipBlock"]["cidr"] for rule in policy["spec"]["ingress"] for peer in rule["from"]]
            assert blocks == service["spec"]["loadBalancerSourceRanges"]
    for policy in of_kind(objects, "NetworkPolicy"):
        for peer in (peer for rule in policy["spec"]["ingress"] for peer in rule["from"]):
            if "ipBlock" in peer:
                assert any(ipaddress.ip_network(peer["ipBlock"]["cidr"]).subnet_of(net) for net in NOBODYS)


def test_other_regions_reach_the_balancer_and_one_redis_and_no_instance_itself(objects, directory):
    shown = [one["spec"]["selector"] for one in of_kind(objects, "Service") if one["spec"].get("type")]
    assert len(shown) == (2 if directory.parent.name == "two-regions" else 0)
    reached = [labels for selector in shown for labels, _ in pods(objects) if selector.items() <= labels.items()]
    assert {labels["app.kubernetes.io/component"] for labels in reached} <= {"site", "redis"}
    assert len([labels for labels in reached if labels["app.kubernetes.io/component"] == "redis"]) == len(shown) // 2


def test_one_pod_of_each_kind_may_be_away_and_another_is_there(objects):
    for one in objects:
        if containers(one):
            labels = one["spec"]["template"]["metadata"]["labels"]
            budgets = [
                budget["spec"]["maxUnavailable"]
                for budget in of_kind(objects, "PodDisruptionBudget")
                if budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
            ]
            assert budgets == [1] and one["spec"]["replicas"] >= 2, one["metadata"]["name"]


def test_images_are_pinned(objects):
    images = {container["image"] for _, container in pods(objects)}
    images |= set(re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) >= 3
    assert all(re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+(-[a-z-]+)?", image) for image in images), images


def test_what_must_exist_first_is_on_the_checklist(objects):
    _, _, rest = GUIDE.partition("## What must exist first")
    checklist = rest.partition("\n#")[0]
    needed = {secret for one in of_kind(objects, "Ingress") for secret in [one["spec"]["tls"][0]["secretName"]]}
    needed |= {one["spec"]["ingressClassName"] for one in of_kind(objects, "Ingress")}
    needed |= {one["apiVersion"].partition("/")[0] for one in objects if one["apiVersion"] not in BUILT_IN}
    for policy in of_kind(objects, "NetworkPolicy"):
        for peer in (peer for rule in policy["spec"]["ingress"] for peer in rule["from"]):
            needed |= set(peer.get("namespaceSelector", {}).get("matchLabels", {}).values())
    needed |= {*mounted_secrets(objects).values()} - {
        one["spec"]["secretName"] for one in of_kind(objects, "Certificate")
    }
    issuers = [
        one["metadata"]["annotations"].get("cert-manager.io/cluster-issuer") for one in of_kind(objects, "Ingress")
    ]
    needed |= {one for one in issuers if one}
    needed |= {f"{instances(objects)['replicas']} nodes", "StorageClass", "concord-registry:", "LoadBalancer"}
    assert {word for word in needed if word not in checklist} == set()


def test_there_is_time_to_drain(objects):
    pod = instances(objects)["template"]["spec"]
    [container] = pod["containers"]
    sleep_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    [drain_s] = [int(entry["value"]) for entry in environment(objects) if entry["name"] == "CONCORD_DRAIN_S"]
    assert sleep_s + drain_s + EXIT_TIMEOUT_S < pod["terminationGracePeriodSeconds"]


def test_pods_may_do_no_more_than_the_restricted_standard_allows(objects):
    [namespace] = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in [one["spec"]["template"]["spec"] for one in objects if containers(one)]:
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            limits = container["securityContext"]
            assert limits["readOnlyRootFilesystem"] and not limits["allowPrivilegeEscalation"]
            assert limits["capabilities"] == {"drop": ["ALL"]}


def test_the_volume_is_mounted_where_the_data_is(objects):
    spec = instances(objects)
    [container] = spec["template"]["spec"]["containers"]
    volumes = [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    volumes += [volume["name"] for volume in spec["template"]["spec"]["volumes"]]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == set(volumes)
    [data] = [entry["value"] for entry in environment(objects) if entry["name"] == "CONCORD_DATA"]
    assert data.startswith(mounts["data"] + "/")


def test_the_image_is_of_this_version(objects):
    [container] = instances(objects)["template"]["spec"]["containers"]
    assert container["image"] == f"concord-registry:{__version__}"


def test_growing_from_one_region_to_two_renames_no_site():
    """Restarted one after the other, instances of two names would stand behind one balancer."""
    [before], [after] = (
        [entry["value"] for entry in environment(build(ROOT / "k8s" / name)) if entry["name"] == "CONCORD_SITE"]
        for name in (BUILT[0], REGIONS[0])
    )
    assert before == after == "eu"


def test_regions_differ_in_what_a_region_is_and_in_nothing_else():
    eu, us = (yaml.safe_dump_all(build(ROOT / "k8s" / name)) for name in REGIONS)
    assert eu != us
    own_eu, own_us = r"\beu\.|: eu$|198\.51\.100", r"\bus\.|: us$|203\.0\.113"
    assert re.sub(own_eu, "", eu, flags=re.M) == re.sub(own_us, "", us, flags=re.M)


@pytest.mark.skipif(
    not (shutil.which("kustomize") or shutil.which("kubectl")),
    reason="only where kustomize or kubectl is; the objects are checked anyway",
)
def test_kustomize_builds_the_same(directory, objects):
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, check=True)
    assert _sorted(yaml.safe_load_all(done.stdout)) == _sorted(objects)


def _sorted(objects):
    return sorted(objects, key=lambda one: (one["kind"], one["metadata"]["name"]))
