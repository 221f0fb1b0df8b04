"""Start a real Slurm cluster on one host: munged, one controller, and two nodes, each with /dev/null as its GPU."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from servers import await_true, children, free_port

NODES = ("n1", "n2")
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "scontrol")
SBIN = "/usr/sbin:/usr/local/sbin"


@dataclass
class Cluster:
    """The daemons of the cluster and its configuration file, `config`."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "slurm.conf"

    def ask(self, *command: str) -> str:
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0, f"{command}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def start(self) -> None:
        """Start every daemon and wait until both nodes are idle."""
        munge = ["--foreground", "--force", f"--socket={self.folder / 'munge' / 'socket'}"]
        munge += [f"--key-file={self.folder / 'munge' / 'key'}", f"--pid-file={self.folder / 'munge' / 'pid'}"]
        munge += [f"--log-file={self.folder / 'munge' / 'log'}", f"--seed-file={self.folder / 'munge' / 'seed'}"]
        self.run("munged", *munge)
        await_true((self.folder / "munge" / "socket").exists)
        self.run("slurmctld", "-D", "-f", str(self.config))
        for name in NODES:
            self.start_node(name)
        await_true(lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(NODES), 60)

    def start_node(self, name: str) -> None:
        self.run(name, "-D", "-N", name, "-f", str(self.config), program="slurmd")

    def run(self, name: str, *arguments: str, program: str | None = None) -> None:
        path = shutil.which(program or name, path=f"{os.environ['PATH']}:{SBIN}")
        assert path is not None
        log = (self.folder / f"{name}.out").open("ab")
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        self.daemons[name] = subprocess.Popen([path, *arguments], stdout=log, stderr=log, env=environment)

    def power_off(self, name: str) -> None:
        """Simulate a power failure: kill a node's daemon and all its processes at once."""
        daemon = self.daemons.pop(name)
        ended = [*step_processes(self.folder, name), *children(daemon.pid)]
        daemon.kill()
        daemon.wait()
        for pid in ended:
            kill(pid)

    def stop(self) -> None:
        for name in NODES:
            if name in self.daemons:
                self.power_off(name)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()


def step_processes(folder: Path, node: str) -> list[int]:
    """Return a node's step daemons, which are not children of slurmd, and their descendants."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_bytes()
            environment = line.with_name("environ").read_bytes()
        except OSError:
            continue
        if b"slurmstepd" in command and str(folder).encode() in environment + command:
            pid = int(line.parent.name)
            if node.encode() in slurm_node(pid):
                found += [pid, *children(pid)]
    return found


def slurm_node(step: int) -> bytes:
    """Return the name of the node on which the children of a step daemon run."""
    for child in children(step):
        try:
            for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                if entry.startswith(b"SLURMD_NODENAME="):
                    return entry.partition(b"=")[2]
        except OSError:
            continue
    return b""


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def start_cluster(folder: Path) -> Cluster:
    """Write the settings and start the cluster. Raises FileNotFoundError or PermissionError if that is impossible."""
    if os.geteuid() != 0:
        raise PermissionError("a Slurm cluster requires root")
    for program in PROGRAMS:
        if shutil.which(program, path=f"{os.environ['PATH']}:{SBIN}") is None:
            raise FileNotFoundError(f"{program} is not installed (apt-get install slurm-wlm munge)")
    folder.chmod(0o755)
    for name in ("munge", "state", *NODES):
        (folder / name).mkdir(mode=0o755)
    subprocess.run(["mungekey", "--create", f"--keyfile={folder / 'munge' / 'key'}"], check=True)
    host = os.uname().nodename
    ports = [free_port() for _ in range(1 + len(NODES))]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 Gres=gpu:fake:1"
        for name, port in zip(NODES, ports[1:], strict=True)
    ]
    settings = f"""
        ClusterName=leaf
        SlurmctldHost={host}(127.0.0.1)
        SlurmctldPort={ports[0]}
        SlurmUser=root
        AuthType=auth/munge
        AuthInfo=socket={folder}/munge/socket,cred_expire=5
        CredType=cred/munge
        StateSaveLocation={folder}/state
        SlurmdSpoolDir={folder}/%n
        SlurmctldPidFile={folder}/slurmctld.pid
        SlurmdPidFile={folder}/%n.pid
        SlurmdParameters=config_overrides
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core
        SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
        GresTypes=gpu
        ReturnToService=2
        SlurmdTimeout=5
        KillWait=5
        MinJobAge=10
        OverTimeLimit=0
        JobCompType=jobcomp/none
        AccountingStorageType=accounting_storage/none
        MailProg=/bin/true
    """.replace("        ", "")
    partition = f"PartitionName=gpu Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP"
    (folder / "slurm.conf").write_text("\n".join([settings.strip(), *nodes, partition, ""]))
    (folder / "gres.conf").write_text("Name=gpu Type=fake File=/dev/null\n")
    cluster = Cluster(folder)
    cluster.start()
    return cluster
