"""Manifests for any namespace: a Deployment under the restricted profile of the Pod Security Standards, and what belongs to it."""

from __future__ import annotations

import ipaddress
from typing import Any

from assay.deploy.base import Service, Written
from assay.deploy.docker import arguments
from assay.deploy.names import CACHE, ENVIRONMENT, HOME, STOP_S, STORE_VARIABLE, USER
from assay.deploy.yaml import documents, written
from assay.words import Text, say

SETTLE_S = 5  # between "no longer an endpoint" and SIGTERM: proxies of the cluster learn of it one after the other


def kubernetes(service: Service, *, memory_mb: int = 1024, cpus: float = 1.0, home_gb: int = 5, claim: str | None = None, most: int | None = None,
               service_monitor: bool = False) -> Written:
    """Deployment, Service, NetworkPolicies, PodDisruptionBudget, ServiceAccount, PersistentVolumeClaim, kustomization.yaml; with a database also
    HorizontalPodAutoscaler.

    memory_mb: asked for and limit, as the memory of a model does not grow with load. cpus: asked for; no limit, because throttling makes the slowest
    answers slower. claim: an existing claim for the home folder that all replicas can write to (ReadWriteMany). most: replicas under load (default: 4 times).
    """
    many = service.store is not None
    files: dict[str, list[dict[str, Any]]] = {
        "deployment.yaml": [_account(service), _deployment(service, memory_mb, cpus, claim)],
        "service.yaml": [_service(service)],
        "networkpolicy.yaml": _policies(service),
        "poddisruptionbudget.yaml": [_budget(service)],
    }
    if many:
        files["horizontalpodautoscaler.yaml"] = [_autoscaler(service, max(most or 4 * service.replicas, service.replicas))]
    if claim is None:
        files["persistentvolumeclaim.yaml"] = [_claim(service, home_gb)]
    if service_monitor:
        files["servicemonitor.yaml"] = [_monitor(service)]
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": sorted(files),
                     "images": [_image(service.image)]}
    out: dict[str, str | bytes] = {name: documents(values) for name, values in files.items()}
    return Written(out | {"kustomization.yaml": written(kustomization)}, _notes(service, claim, service_monitor))


def _notes(service: Service, claim: str | None, service_monitor: bool) -> list[Text]:
    notes = []
    if service_monitor and not service.open_metrics:
        notes.append(say("Prometheus asks with a key that no file holds: assay keys make gives one, then kubectl create secret generic {name} --from-literal=key=KEY", name=f"{service.name}-metrics"))
    if service.store is None:
        return [*notes, say("One replica and no autoscaling: SQLite is one file, for the processes of one machine. For more give a database: --store postgresql://HOST/DATABASE")]
    url = f"{service.store.dialect}://USER:PASSWORD@{service.store.host}:{service.store.port}/{service.store.database}"
    notes.append(say("The address of the store, with user and password, is read from a secret that no file holds: kubectl create secret generic {name} --from-literal=url='{url}'",
                 name=f"{service.name}-store", url=url))
    if claim is None:
        notes.append(say("The home folder holds every version of every model and is shared by all replicas: its claim asks for a volume that many can write to "
                         "(ReadWriteMany). If such a volume is there already: --claim NAME"))
    return notes


def _meta(service: Service, suffix: str = "") -> dict[str, Any]:
    return {"name": service.name + suffix, "labels": service.labels | {"app.kubernetes.io/managed-by": "assay"}}


def _account(service: Service) -> dict[str, Any]:
    """An account without rights, and without a token in the pod."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(service), "automountServiceAccountToken": False}


def _deployment(service: Service, memory_mb: int, cpus: float, claim: str | None) -> dict[str, Any]:
    # two pods never write to one SQLite file: the old one goes first. Otherwise the new one is ready before the old one goes
    strategy: dict[str, Any] = {"type": "Recreate"} if service.store is None else {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(service.port), "prometheus.io/path": "/metrics"} if service.open_metrics else {}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(service),
        "spec": {
            **({"replicas": 1} if service.store is None else {}),  # with an autoscaler the number is its own
            "revisionHistoryLimit": 5, "strategy": strategy, "selector": {"matchLabels": service.labels},
            "template": {
                "metadata": {"labels": service.labels, "annotations": {
                    "assay/bundles": " ".join(bundle.digest for bundle in service.bundles)} | scraped},
                "spec": {
                    "serviceAccountName": service.name, "automountServiceAccountToken": False, "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": STOP_S + SETTLE_S,
                    "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch",
                                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": service.labels}}
                                                  for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")],
                    "containers": [_container(service, memory_mb, cpus)],
                    "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": claim or f"{service.name}-home"}}, {"name": "cache", "emptyDir": {}}, {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
                },
            },
        },
    }


def _container(service: Service, memory_mb: int, cpus: float) -> dict[str, Any]:
    environment: list[dict[str, Any]] = []
    if service.store is not None:
        environment.append({"name": STORE_VARIABLE, "valueFrom": {"secretKeyRef": {"name": f"{service.name}-store", "key": "url"}}})
    return {
        "name": "assay", "image": service.image, "imagePullPolicy": "IfNotPresent", "args": arguments(service), **({"env": environment} if environment else {}),
        "ports": [{"name": "http", "containerPort": service.port}],
        "startupProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": [f"{ENVIRONMENT}/bin/python", "-c", f"import time; time.sleep({SETTLE_S})"]}}},
        "resources": {"requests": {"cpu": _cpu(cpus), "memory": f"{memory_mb}Mi", "ephemeral-storage": "1Gi"}, "limits": {"memory": f"{memory_mb}Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "home", "mountPath": HOME}, {"name": "cache", "mountPath": CACHE}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _service(service: Service) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(service),
            "spec": {"type": "ClusterIP", "selector": service.labels, "ports": [{"name": "http", "port": service.port, "targetPort": "http"}]}}


def _autoscaler(service: Service, most: int) -> dict[str, Any]:
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": _meta(service),
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name}, "minReplicas": service.replicas, "maxReplicas": most,
                     "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}],
                     # up at once, down only after five quiet minutes: a pod takes longer to start than a burst lasts
                     "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}, "scaleDown": {"stabilizationWindowSeconds": 300}}}}


def _budget(service: Service) -> dict[str, Any]:
    # maxUnavailable, not minAvailable: with one replica minAvailable 1 would keep a node from ever being emptied
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": _meta(service),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": service.labels}}}


def _claim(service: Service, gb: int) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _meta(service, "-home"),
            "spec": {"accessModes": ["ReadWriteOnce" if service.store is None else "ReadWriteMany"], "resources": {"requests": {"storage": f"{gb}Gi"}}}}


def _policies(service: Service) -> list[dict[str, Any]]:
    """Nothing in and nothing out, then: in to the port, out to the cluster's names and to the store. Policies add up."""
    chosen = {"matchLabels": service.labels}
    closed = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _meta(service, "-closed"),
              "spec": {"podSelector": chosen, "policyTypes": ["Ingress", "Egress"]}}
    egress: list[dict[str, Any]] = [{
        # the second is NodeLocal DNSCache, where a cluster has it
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}, {"ipBlock": {"cidr": "169.254.20.10/32"}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]
    if service.store is not None:
        egress.append(_towards(service.store.host) | {"ports": [{"protocol": "TCP", "port": service.store.port}]})
    opened = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _meta(service),
              "spec": {"podSelector": chosen, "policyTypes": ["Ingress", "Egress"],
                       "ingress": [{"ports": [{"protocol": "TCP", "port": service.port}]}], "egress": egress}}
    return [closed, opened]


def _towards(host: str) -> dict[str, Any]:
    """Where a store is, as narrow as a policy can say it: an address, a namespace of the cluster, or (a name outside) anywhere on that port."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        parts = host.split(".")
        if len(parts) == 1:
            return {"to": [{"podSelector": {}}]}  # a service of the same namespace
        if len(parts) == 2 or parts[2] == "svc":
            return {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": parts[1]}}}]}
        return {}
    return {"to": [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]}


def _monitor(service: Service) -> dict[str, Any]:
    key = {} if service.open_metrics else {"authorization": {"type": "Bearer", "credentials": {"name": f"{service.name}-metrics", "key": "key"}}}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": _meta(service),
            "spec": {"selector": {"matchLabels": service.labels}, "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"} | key]}}


def _image(image: str) -> dict[str, str]:
    """What `kustomize edit set image` changes, so that a new tag is one line."""
    plain, _, digest = image.partition("@")
    name, colon, tag = plain.rpartition(":")
    if not colon or "/" in tag:
        name, tag = plain, "latest"
    return {"name": name, "digest": digest} if digest else {"name": name, "newTag": tag}


def _cpu(cpus: float) -> str:
    return f"{round(cpus * 1000)}m"
