"""A hardened unit for one machine without containers, and a timer that retrains."""

from __future__ import annotations

import shlex
import sys
from string import Template

from assay import __version__
from assay.deploy.base import Service, Written
from assay.deploy.docker import arguments, missing, parts
from assay.deploy.lock import local_notes, text
from assay.deploy.names import STOP_S, STORE_VARIABLE
from assay.deploy.wheel import wheel
from assay.errors import InputError
from assay.words import say

# One account and one state folder for the service and its retraining. ProcSubset=pid is not set: the memory that is left is read from
# /proc/meminfo. MemoryDenyWriteExecute is not set: the compilers inside torch and numba need it
_HARDENING = '''\
DynamicUser=yes
User=$name
StateDirectory=$name
StateDirectoryMode=0700
CacheDirectory=$name
CacheDirectoryMode=0700
WorkingDirectory=%S/$name
Environment=HOME=%S/$name ASSAY_HOME=%S/$name ASSAY_CACHE=%C/$name PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1
${store}UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateUsers=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
'''

_SERVICE = Template('''\
# Made by assay $assay. Install: sh install.sh
[Unit]
Description=assay serve: $models
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=exec
ExecStart=$command
Restart=on-failure
RestartSec=2
# requests under way are answered first; the workers get SIGTERM from their parent
KillMode=mixed
TimeoutStopSec=$stop
MemoryHigh=${high}M
MemoryMax=${memory}M
TasksMax=512
LimitNOFILE=65536
''' + _HARDENING + '''
[Install]
WantedBy=multi-user.target
''')

_RETRAIN = Template('''\
# Made by assay $assay. One instance a model: systemctl enable --now $name-retrain@MODEL.timer
[Unit]
Description=assay retrain %i
After=network-online.target $name.service
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=$prefix/bin/assay retrain %i
TimeoutStartSec=6h
# it never takes the processor from the service
Nice=10
CPUWeight=20
IOSchedulingClass=idle
MemoryMax=${retrain_memory}M
TasksMax=512
''' + _HARDENING)

_TIMER = Template('''\
[Unit]
Description=When assay retrains %i

[Timer]
OnCalendar=$when
RandomizedDelaySec=15min
# a machine that was off then does it when it is on again
Persistent=true

[Install]
WantedBy=timers.target
''')

_INSTALL = Template('''\
#!/bin/sh
# Installs $name under $prefix and its units; run again for a new version. Needs root, Python $python with its venv module, and an index that pip can reach.
set -eu
cd "$$(dirname "$$0")"
${gomp}test -x $prefix/bin/python || python$python -m venv $prefix
$prefix/bin/python -m pip install --no-deps -r requirements.lock
$prefix/bin/python -m pip install --no-deps --no-index --force-reinstall wheels/$wheel
install -d -m 0755 $prefix/bundles /etc/$name
install -m 0444 bundles/*.assay $prefix/bundles/
install -m 0644 $name.service $name-retrain@.service $name-retrain@.timer /etc/systemd/system/
systemctl daemon-reload
systemctl enable $name.service
systemctl restart $name.service
''')


def systemd(service: Service, *, host: str = "127.0.0.1", memory_mb: int = 2048, retrain: str = "Sun 03:00", retrain_memory_mb: int = 8192) -> Written:
    """NAME.service, NAME-retrain@.service, NAME-retrain@.timer (one instance a model), install.sh, the lock, the wheel and the bundles.

    host: where it listens; only this machine unless said otherwise. memory_mb: hard limit; at 90 % of it the kernel begins to take memory back.
    retrain: when, as systemd.time(7) writes it.
    """
    if "\n" in retrain or not retrain.strip():
        raise InputError("'{when}' is not a time that systemd knows. Expected such as: Sun 03:00, daily, *-*-01 02:30", when=retrain)
    if service.replicas > 1:
        raise InputError("systemd runs one service of this name on a machine: give it more --workers instead of --replicas.")
    made = wheel()
    found = parts(service, made)
    prefix = f"/opt/{service.name}"
    command = [f"{prefix}/bin/assay", "serve", *arguments(service, host=host, folder=f"{prefix}/bundles")]
    gomp = ("ldconfig -p | grep -q libgomp.so.1 || { echo 'libgomp.so.1 is missing: install the package libgomp1 (Debian) or libgomp (Fedora)' >&2; exit 1; }\n"
            if any(pin.name == "lightgbm" for pin in found) else "")
    holes = {"name": service.name, "assay": __version__, "models": ", ".join(b.model for b in service.bundles), "prefix": prefix, "command": shlex.join(command),
             "stop": STOP_S, "memory": memory_mb, "high": memory_mb * 9 // 10, "retrain_memory": retrain_memory_mb, "when": retrain.strip(), "wheel": made.file,
             "python": ".".join(map(str, sys.version_info[:2])), "gomp": gomp, "store": f"EnvironmentFile=/etc/{service.name}/store.env\n" if service.store is not None else ""}
    files: dict[str, str | bytes] = {
        f"{service.name}.service": _SERVICE.substitute(holes), f"{service.name}-retrain@.service": _RETRAIN.substitute(holes),
        f"{service.name}-retrain@.timer": _TIMER.substitute(holes), "install.sh": _INSTALL.substitute(holes),
        "requirements.lock": text(found), f"wheels/{made.file}": made.content}
    files |= {f"bundles/{bundle.file}": bundle.path.read_bytes() for bundle in service.bundles}
    notes = [*missing(service, found), *local_notes(found)]
    if service.store is not None:
        notes.append(say("The address of the store, with user and password, goes into {file}, which only root may read: {variable}={dialect}://USER:PASSWORD@{host}:{port}/{database}",
                         file=f"/etc/{service.name}/store.env", variable=STORE_VARIABLE, dialect=service.store.dialect, host=service.store.host, port=service.store.port,
                         database=service.store.database))
    return Written(files, notes)
