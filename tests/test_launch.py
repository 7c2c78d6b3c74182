"""The SLURM scripts on a real SLURM of one node, which is brought up for these tests where it is installed."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import REPOSITORY, environment, results, write_experiment
from tests.cli.test_kill import bytes_of

pytestmark = pytest.mark.slow

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
SETTINGS = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=30
JobRequeue=1
SlurmdParameters=config_overrides
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SchedulerParameters=sched_interval=5,sched_min_interval=0,batch_sched_delay=0,bf_interval=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
FIT = ("--config", "small.yaml", "--checkpoint.every_n_steps", "1")


@dataclass
class Cluster:
    """A SLURM of one node with two processors."""

    folder: Path

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """Run one of SLURM's commands."""
        env = environment(SLURM_CONF=str(self.folder / "slurm.conf"))
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, work: Path, script: str, *args: str, options: tuple[str, ...] = ()) -> str:
        """Submit one of the scripts; the job's number."""
        path = str(REPOSITORY / "launch" / script)
        output = ("--output", f"{work}/%A_%a.out" if "seeds" in script else f"{work}/%j.out")
        return self.call("sbatch", "--parsable", *output, *options, path, *args, cwd=work).strip()

    def state(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", job)))

    def ended(self, job: str) -> Callable[[], bool]:
        """Whether a job has ended for good."""
        return lambda: self.state(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def wait(moment: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Brings SLURM up, and takes it down again."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"SLURM is not installed here (no {missing[0]}); Debian has it as slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    names = {"user": getpass.getuser(), "host": socket.gethostname(), "folder": folder, "ports": free_ports(2)}
    (folder / "slurm.conf").write_text(SETTINGS.format(**names))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    cluster = Cluster(folder)
    files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "log", "pid", "seed")]
    try:
        cluster.call("munged", "--force", f"--socket={folder}/munge.socket", *files)
        cluster.call("slurmctld", "-c")
        cluster.call("slurmd", "-N", "localhost")
        wait(lambda: "State=IDLE" in cluster.call("scontrol", "show", "node", "localhost"), 60)
        yield cluster
        cluster.call("scancel", "--user", getpass.getuser())
        wait(lambda: "No jobs" in cluster.call("scontrol", "show", "job") or _all_ended(cluster), 60)
    finally:
        for file in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((folder / file).read_text()), signal.SIGTERM)
        wait(lambda: not list(folder.glob("*.pid")), 60)


def _all_ended(cluster: Cluster) -> bool:
    states = re.findall(r"JobState=(\w+)", cluster.call("scontrol", "show", "job"))
    return not {"RUNNING", "PENDING", "COMPLETING"} & set(states)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, gpt2_folder: Path) -> Path:
    """A folder with the small experiment, long enough to be stopped."""
    folder = tmp_path_factory.mktemp("work")
    write_experiment(folder, gpt2_folder, max_epochs=30)
    return folder


@pytest.fixture(scope="module")
def whole(cluster: Cluster, work: Path) -> Path:
    """The folder of a run of two tasks that was never stopped."""
    job = cluster.submit(work, "slurm.sbatch", *FIT, options=("--ntasks-per-node", "2"))
    wait(cluster.ended(job))
    assert cluster.state(job)["JobState"] == "COMPLETED", (work / f"{job}.out").read_text()
    return work / f"runs/small-slurm{job}"


def wait_for_a_checkpoint(cluster: Cluster, job: str, run: Path) -> None:
    """Wait until a run has written a checkpoint (or will never do so)."""
    wait(lambda: (run / "checkpoints/last.ckpt").exists() or cluster.ended(job)())


def test_two_tasks_are_requeued_and_go_on(cluster: Cluster, work: Path, whole: Path) -> None:
    job = cluster.submit(work, "slurm.sbatch", *FIT, options=("--ntasks-per-node", "2"))
    run = work / f"runs/small-slurm{job}"
    wait_for_a_checkpoint(cluster, job, run)
    cluster.call("scancel", "--signal=USR1", job)
    wait(cluster.ended(job))
    shown = (work / f"{job}.out").read_text()
    state = cluster.state(job)
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1"), shown
    assert shown.count(f"last.ckpt' is written); job {job} is requeued") == 1, shown
    assert shown.count(f"continuing from last.ckpt of {run.name}") == 1, shown
    assert "Traceback" not in shown
    assert results(run) == results(whole)
    assert bytes_of(run) == bytes_of(whole)


def test_a_cancelled_job_is_continued_by_another(cluster: Cluster, work: Path, whole: Path) -> None:
    job = cluster.submit(work, "slurm.sbatch", *FIT, options=("--ntasks-per-node", "2"))
    run = work / f"runs/small-slurm{job}"
    wait_for_a_checkpoint(cluster, job, run)
    cluster.call("scancel", job)  # SIGTERM
    wait(lambda: "stopped by SIGTERM (" in (work / f"{job}.out").read_text())
    assert not (run / "results.json").exists()
    again = cluster.submit(work, "slurm.sbatch", *FIT, "--run.name", run.name, options=("--ntasks-per-node", "2"))
    wait(cluster.ended(again))
    shown = (work / f"{again}.out").read_text()
    assert "continuing from last.ckpt" in shown, shown
    assert cluster.state(job)["JobState"] == "CANCELLED"
    assert bytes_of(run) == bytes_of(whole)


def test_seeds_are_a_job_array(cluster: Cluster, work: Path) -> None:
    seeds = (42, 43)
    job = cluster.submit(work, "slurm_seeds.sbatch", *FIT, options=("--array", "42-43"))
    runs = {seed: work / f"runs/small-slurm{job}_{seed}" for seed in seeds}
    wait_for_a_checkpoint(cluster, f"{job}_43", runs[43])
    cluster.call("scancel", "--signal=USR1", f"{job}_43")
    for seed, run in runs.items():
        wait(cluster.ended(f"{job}_{seed}"))
        shown = (work / f"{job}_{seed}.out").read_text()
        assert results(run)["seed"] == seed, shown
        assert cluster.state(f"{job}_{seed}")["Restarts"] == str(int(seed == 43)), shown
