#!/usr/bin/env python3
"""Fault sweep: the n-th allocation, MPI call, HDF5 call or write of a run fails on one rank, for n = 1, 2, ... until the run
does not come that far.

After every fault the run ends by itself, with the documented exit code on all ranks and one line that says why, and leaves
neither memory, handles nor files behind; or it goes on, where that is right (SURVIVES), and its result is bit-identical.

    sweep.py [--stride N] [--only WORD ...] [--call N] [--jobs N] [--seed N] [--log FILE [--again]] [--list]

--stride N takes every N-th call beyond the first ones, from a random one on (the seed is printed; default from
LONGSPAN_FAULT_STRIDE, else chosen so that all takes a minute or two); --stride 1 is the full sweep. --only takes the cases
whose name has all the words, and --call N that call alone. --log FILE notes every run (a line of JSON each) and leaves out
those that FILE has already, so that an interrupted sweep goes on; --again repeats those of them that were wrong.

Environment: LONGSPAN_BIN, LONGSPAN_FAULT_LIBRARY, MPIEXEC.

SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import collections
import concurrent.futures
import contextlib
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from common import BIN, environment, launcher, operands, write_input  # noqa: E402

LIBRARY = os.path.abspath(os.environ.get("LONGSPAN_FAULT_LIBRARY", ""))
LIMIT = 120  # seconds to an end: a hang is a failure (a run takes one)
SAVED = re.compile(r".*\.checkpoint(\.\d+)?(\.prev)?")
COMMANDS = ("exact", "saving", "topk", "svd")
KINDS = ("alloc", "mpi", "poll", "hdf5", "write", "full")
POLLS = 40  # of how many polls each may fail: there are as many as time allows
CODES = {"alloc": {5}, "mpi": {70}, "poll": {70}, "hdf5": {3, 6}, "write": {6}, "full": {6}}

# What may fail without consequence: by function, and by words among the functions on the way, where that is not enough.
SURVIVES = {
    # What was to be given back is, and the result is complete by then.
    **{name: [()] for name in ("MPI_Comm_free", "MPI_Errhandler_free", "MPI_Type_free", "MPI_Finalize")},
    "aligned_alloc": [("lsp_wire_open",)],  # no watchdog: a warning
    "H5Aexists": [("lsp_h5_put",)],  # creating it anew would fail if it were there
    # Empty files made to see whether they can be; HDF5's first look; descriptors that are not needed any more.
    "fclose": [("_probe",)],
    "unlink": [("_probe",)],
    "close": [("_probe",), ("lsp_output_free",)],
    "open": [("H5Fcreate",)],
    "link": [("lsp_saved_write",)],  # the checkpoint before is renamed where there are no hard links
}
OUT, IN = "out.h5", "in.h5"
VARIES = ("deck",)  # attributes that name the run's own files
SURVIVES_IN = {
    "_json": lambda case: case.rank != 0 and case.kind == "alloc",  # of the report, which rank 0 writes
    "lsp_h5_type_name": lambda case: True,  # for messages
    "lsp_h5_dataset_type": lambda case: True,  # compares with one type after the other: that one may not be it
}


class Case(collections.namedtuple("Case", "command ranks kind rank")):
    """Which call of what run fails: a kind of call, on a rank."""

    def __str__(self):
        return f"{self.command} on {self.ranks}, {self.kind} of rank {self.rank}"


class Runner:
    """Starts runs of the command with a fault in them, and judges how they end."""

    def __init__(self, folder):
        self.folder = folder
        self.source = os.path.join(folder, IN)
        q, k, v = operands((2, 45, 8), (1, 1300, 8), 12, seed=4)
        write_input(self.source, q, k, v)
        self.small = os.path.join(folder, "small-" + IN)
        q, k, v = operands((2, 31, 8), (2, 53, 8), 8, seed=5)
        write_input(self.small, q, k, v)
        self.clean = {}

    def options(self, command, kind, place):
        keys = {
            "compute.threads": 1,
            "compute.isa": "portable",
            "report.progress": "no",
            "output.file": os.path.join(place, OUT),
            "report.json": os.path.join(place, "report.json"),
            "input.file": self.source,
        }
        if command in ("exact", "saving"):
            keys.update({"compute.panel_rows": 512, "compute.gather": "panels", "attention.mask": "causal", "verify.rows": 2})
        if command == "saving":
            keys["checkpoint.every_seconds"] = 0.000001
        if command == "topk":
            keys.update({"attention.method": "topk", "attention.topk": 5, "output.weights": "yes", "verify.rows": 2})
            keys.update({"compute.panel_rows": 512, "compute.gather": "chain"})
        if command == "svd":
            keys.update({"input.file": self.small, "attention.rank": 3, "attention.oversample": 2, "attention.steps": 1})
        deck = os.path.join(self.folder, f"{command}.ini")
        if not os.path.exists(deck):
            with open(deck, "w", encoding="utf-8") as file:
                file.write("[attention]\nseed = 3\n")
        return ["svd" if command == "svd" else "attend", deck, *(f"--{key}={value}" for key, value in keys.items())]

    def launch(self, case, call, place, more=()):
        """Runs to the end or for LIMIT seconds; (code or None, words, [codes of the ranks that came to an end])."""
        env = environment()
        # Starting ranks costs most of a run: nothing is looked for that runs on one machine do not need.
        for key, value in {"btl": "self,vader", "pml": "ob1", "plm": "isolated"}.items():
            env.setdefault("OMPI_MCA_" + key, value)
        env["LONGSPAN_FAULT"] = f"{'write' if case.kind == 'full' else case.kind}:{call}{'+' * (case.kind == 'full')}:{case.rank}"
        env["LONGSPAN_FAULT_FOLDER"] = place + "/"
        env.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")  # cores are shared
        log = os.path.join(self.folder, os.path.basename(place))
        env["LONGSPAN_FAULT_LOG"] = log + ".log"
        # When MPI has failed on a rank the others find out from the launcher alone; else from that rank.
        env["OMPI_MCA_orte_abort_on_non_zero_status"] = "1" if 70 in CODES.get(case.kind, ()) else "0"
        env["OMPI_MCA_odls_base_sigkill_timeout"] = "0"
        # To files of their own: what ranks print can meet on a line.
        script = f'LD_PRELOAD={LIBRARY} "$@"; code=$?; echo $code >"{log}.code.${{OMPI_COMM_WORLD_RANK:-0}}"; exit $code'
        command = ["sh", "-c", script, "sh", BIN, *self.options(case.command, case.kind, place), *more]
        if case.ranks > 1:
            command = [*launcher(case.ranks), *command]
        else:
            env["OMPI_MCA_ess_singleton_isolated"] = "1"
            env["OMPI_MCA_orte_tmpdir_base"] = place + ".session"  # else such singletons share one
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            start_new_session=True,
            errors="replace",
        )
        with contextlib.suppress(OSError):  # Linux shares processors out among sessions first
            with open(f"/proc/{process.pid}/autogroup", "w", encoding="ascii") as file:
                file.write(str(os.nice(0)))
        try:
            words, _ = process.communicate(timeout=LIMIT)
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            words, _ = process.communicate()
            code = None
        codes = []
        for name in sorted(glob.glob(log + ".code.*")):
            with open(name, encoding="ascii") as file:
                codes += [int(word) for word in file.read().split()]
            os.remove(name)
        return code, words, codes

    def logs(self, place):
        """What the ranks' libraries wrote: ([lines of the fault], {rank: counts at the end})."""
        fault, ends = [], {}
        for name in sorted(glob.glob(os.path.join(self.folder, os.path.basename(place) + ".log.*"))):
            with open(name, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
            os.remove(name)
            for line in lines:
                if line.startswith("end "):
                    ends[int(name.rsplit(".", 1)[1])] = {k: int(v) for k, v in re.findall(r"(\w+)=(-?\d+)", line)}
                else:
                    fault.append(line)
        return fault, ends

    def run(self, case, call):
        """(what was injected, what is wrong or None, outcome in a word, the ranks' counts)."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.folder) as place:
            begin = time.time()
            code, words, codes = self.launch(case, call, place)
            seconds = time.time() - begin
            fault, ends = self.logs(place)
            wrong, outcome = self.judge(case, code, words, codes, fault, ends, place)
            wrong = wrong or self.judge_resumed(case, outcome, fault, place)
            shutil.rmtree(place + ".session", ignore_errors=True)
        if wrong:
            wrong = "\n  ".join([f"{case}, call {call}: {wrong} ({seconds:.1f} s)", way(fault), *said(words)])
        return fault, wrong, outcome, ends

    # ---- judging ----

    def judge(self, case, code, words, codes, fault, ends, place):
        lines = [line for line in words.splitlines() if "longspan: error:" in line]
        name = fault[0].split()[-1] if fault else None
        left = sorted(os.listdir(place))
        if code is None:
            return "no end", "hang"
        if 70 not in CODES.get(case.kind, ()):
            # The launcher was told not to end the others: what counts is how each ends.
            if len(codes) != case.ranks or len(set(codes)) != 1:
                return f"ranks ended with {codes}", "ranks differ"
            code = codes[0]
        wrong = self.judge_files(case, code, left, place, name)
        if code == 0:
            outcome = "survived" if fault else "untouched"
            if not fault or self.may_survive(case, name, fault, words):
                wrong = wrong or self.judge_success(case, name, lines, fault, ends, left)
            else:
                wrong = "the fault had no consequence"
            return wrong, outcome
        wrong = wrong or self.judge_failure(case, code, words, lines, codes, fault, ends, left)
        return wrong, f"code {code}"

    def may_survive(self, case, name, fault, words):
        if case.kind == "hdf5" and name.endswith("close"):
            return True  # of what was only read, or a mere description; else the run fails
        if "longspan: warning: no checkpoint was written" in words:
            return True
        if any(word in "".join(fault) and holds(case) for word, holds in SURVIVES_IN.items()):
            return True
        return any(
            all(any(word in line for line in fault) for word in words) for words in SURVIVES.get(name, ())
        )

    def judge_success(self, case, name, lines, fault, ends, left):
        if lines:
            return "an error was told, and the run succeeded"
        if left != [OUT, "report.json"] and name != "unlink":
            return f"there are {left}"
        return self.judge_leaks(case, name, fault, ends)

    def judge_failure(self, case, code, words, lines, codes, fault, ends, left):
        if not fault:
            return "failed without a fault"
        name = fault[0].split()[-1]
        if len(lines) != 1:
            return f"{len(lines)} error lines"
        if not re.search("; |: use ", lines[0]):
            return "the error names no remedy"
        # Where MPI fails when files are closed after the report, the result is complete, which judge_files has seen.
        if "PASSED" in words and not (code == 70 and {OUT, "report.json"} <= set(left)):
            return "PASSED was told of a run that failed"
        if name == "MPI_Init_thread" and code != 0:
            code = 70  # the launcher's own way to tell that a rank has not come so far
        if code not in CODES[case.kind]:
            return f"code {code}"
        if 70 in CODES[case.kind]:
            # The others are ended by the launcher: 143 and 137 are its signals.
            return None if set(codes) <= {70, 137, 143} else f"ranks ended with {codes}"
        return self.judge_leaks(case, name, fault, ends)

    def judge_leaks(self, case, name, fault, ends):
        if len(ends) != case.ranks:
            return f"{len(ends)} of {case.ranks} ranks came to MPI_Finalize"
        things = ["blocks", "comms", "files", "handles"]
        if case.kind in ("write", "full"):
            things.remove("handles")  # one that cannot be closed, as what it stands for is gone already
        for rank, held in ends.items():
            found = [f"{held[what]} {what}" for what in things if held[what] != 0]
            if found:
                return f"rank {rank} has not given back: {', '.join(found)}"
        return None

    def judge_files(self, case, code, left, place, name):
        """Complete files under their names, or none."""
        known = {OUT, "report.json"}
        others = [entry for entry in left if entry not in known and not SAVED.fullmatch(entry)]
        if case.ranks > 1 and case.rank != 0 and code == 70:
            # Rank 0 was ended before it could tell the name, or remove the file: the next run does (test_kill.py).
            others = [entry for entry in others if not re.fullmatch(re.escape("." + OUT) + r".*\.partial", entry)]
        if others and name not in ("unlink",):
            return f"left behind: {others}"
        clean = self.clean.get((case.command, case.ranks))
        try:
            if "report.json" in left:
                with open(os.path.join(place, "report.json"), encoding="utf-8") as file:
                    report = json.load(file)
                keys = sorted(report)
                if clean and keys != clean["keys"] and not report.get("complete_before"):
                    return f"the report lacks {sorted(set(clean['keys']) - set(keys))}"
            if OUT in left:
                data = contents(os.path.join(place, OUT))
                if clean and data != clean["data"]:
                    return "the output differs from that of a run without faults"
        except (OSError, ValueError, KeyError) as error:
            return f"a file is not complete: {error}"
        return None

    def judge_resumed(self, case, outcome, fault, place):
        """What a failed run has saved is for the next one to go on from, on other ranks too; it leaves nothing then."""
        saved = [entry for entry in sorted(os.listdir(place)) if SAVED.fullmatch(entry)]
        if not saved or not fault or outcome == "hang" or fault[0].split()[-1] == "unlink":
            return None
        ranks = case.ranks if case.command == "svd" else 1  # whose bits depend on them
        again = Case(case.command, ranks, "none", 0)
        code, words, codes = self.launch(again, 0, place, ["--checkpoint.resume=" + ("auto" if OUT in os.listdir(place) else "yes")])
        _, ends = self.logs(place)
        wrong, _ = self.judge(again, code, words, codes, [], ends, place)
        told = said(words)
        if not wrong and (code != 0 or told):
            wrong = "not without a word"
        return wrong and f"going on from {', '.join(saved)}: {' / '.join([wrong, *told])}"

    def take_clean(self, command, ranks):
        """A run without faults: its counts, and what later ones are compared with."""
        case = Case(command, ranks, "none", 0)
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.folder) as place:
            code, words, codes = self.launch(case, 0, place)
            fault, ends = self.logs(place)
            wrong, _ = self.judge(case, code, words, codes, fault, ends, place)
            if wrong or code != 0:
                sys.exit(f"{case}: a run without faults fails: {wrong}\n{words}\n{ends}")
            with open(os.path.join(place, "report.json"), encoding="utf-8") as file:
                keys = sorted(json.load(file))
            self.clean[command, ranks] = {"keys": keys, "data": contents(os.path.join(place, OUT))}
        return ends


def said(words):
    """The command's errors and warnings, but for the one that cores are shared."""
    lines = [line for line in words.splitlines() if re.search("longspan: (error|warning): ", line)]
    return [line for line in lines if "warning: a node runs" not in line]


def way(fault):
    """The functions of Longspan that led to the fault, the innermost first, as far as their names are exported."""
    frames = [re.search(r"longspan[^(/]*\(([\w]*)\+(0x[0-9a-f]+)\)", line) for line in fault[1:]]
    names = [frame.group(1) or frame.group(2) for frame in frames if frame]
    return (fault[0] if fault else "nothing was injected") + " in " + " < ".join(names)


def attributes(item):
    """What does not differ from run to run."""
    return {name: str(item.attrs[name]) for name in item.attrs if name not in VARIES and "LIST" not in name}


def contents(path):
    """Every dataset of a file, with its checksum."""
    found = {}
    with h5py.File(path) as file:

        def take(name, item):
            if isinstance(item, h5py.Dataset):
                found[name] = (item[()].tobytes(), attributes(item))

        file.visititems(take)
        found[""] = attributes(file)
    return found


def files_of_longspan():
    return [BIN, *glob.glob(os.path.join(os.path.dirname(BIN), "..", "lib", "liblongspan.so"))]


def build_sum():
    """Tells one build from another."""
    total = hashlib.sha256()
    for name in [*files_of_longspan(), LIBRARY]:
        with open(name, "rb") as file:
            total.update(file.read())
    return total.hexdigest()[:16]


def check_complete():
    """Every call of HDF5 and MPI that Longspan makes can fail in this library."""

    def symbols(file, which):
        listed = subprocess.run(["nm", "-D", which, file], capture_output=True, text=True, check=True).stdout
        return {line.split()[-1].split("@")[0] for line in listed.splitlines()}

    needed = set().union(*(symbols(file, "--undefined-only") for file in files_of_longspan()))
    never = {"MPI_Abort", "MPI_Error_string", "MPI_Get_library_version", "MPI_Initialized", "H5open", "H5dont_atexit", "H5get_libversion"}
    never |= {"H5free_memory", "H5check_version", "H5Iget_type", "MPI_Comm_c2f", "MPI_Comm_f2c"}
    made = symbols(LIBRARY, "--defined-only")
    missing = [n for n in needed if re.fullmatch(r"(MPI_|H5(?!E|T_|P_))\w+_?\w*", n) and n not in made | never]
    missing = [n for n in missing if not n.endswith("_g")]
    if missing:
        sys.exit(f"tests/fault does not know these calls of Longspan: {sorted(missing)}")


def choose(count, stride, seed, case):
    """Which calls fail: all, or the first few and every stride-th."""
    numbers = list(range(1, count + 1))
    if stride <= 1:
        return numbers
    start = random.Random(f"{seed} {case}").randrange(stride)
    return sorted({*numbers[:1], *numbers[start::stride]})


class Log:
    """The runs made so far: {(case, call): (outcome, wrong)}, also in a file when there is a name for one."""

    def __init__(self, name, again):
        self.done = {}
        self.file = open(name, "a+", encoding="utf-8") if name else None  # noqa: SIM115 (until the end)
        if self.file:
            self.file.seek(0)
            text = self.file.read()
            whole = text[: text.rfind("\n") + 1]
            self.file.truncate(len(whole.encode()))  # half a line is of a sweep that was killed
            entries = [json.loads(line) for line in whole.splitlines()]
            first = {"build": build_sum()}
            if not entries:
                self.file.write(json.dumps(first) + "\n")
            elif entries.pop(0) != first:
                sys.exit(f"{name} is not the log of a sweep of this build: name another file")
            for entry in entries:
                self.done[entry["case"], entry["call"]] = (entry["outcome"], entry["wrong"])
        if again:
            self.done = {key: ended for key, ended in self.done.items() if not ended[1]}

    def add(self, case, call, outcome, wrong):
        self.done[str(case), call] = (outcome, wrong)
        if self.file:
            self.file.write(json.dumps({"case": str(case), "call": call, "outcome": outcome, "wrong": wrong}) + "\n")
            self.file.flush()


def plan(runner, asked, stride, seed):
    """All (case, call) asked for."""
    work = []
    for command in COMMANDS:
        for ranks in (1, 3):
            cases = [Case(command, ranks, kind, rank) for kind in KINDS for rank in sorted({0, ranks - 1})]
            cases = [case for case in cases if all(word in str(case) for word in asked.only)]
            if not cases:
                continue
            # How often is saved depends on time.
            cleans = [runner.take_clean(command, ranks) for _ in range(4 if command == "saving" else 1)]
            for case in cases:
                count = max(ends[case.rank]["write" if case.kind == "full" else case.kind] for ends in cleans)
                if asked.list:
                    print(f"{case}: {count} calls")
                if case.kind == "poll":
                    count = min(count, POLLS)
                numbers = [asked.call] if asked.call else choose(count, stride, seed, case)
                # One beyond the last, which nothing hits.
                work += [(case, number) for number in numbers + [10**6] * (stride == 1 and not asked.call)]
    return work


def sweep(runner, work, log, jobs):
    """Runs all that the log does not have."""
    todo = [item for item in work if (str(item[0]), item[1]) not in log.done]
    random.Random(0).shuffle(todo)  # an interrupted sweep has seen something of all
    print(f"fault sweep: {len(todo)} of {len(work)} runs to do", flush=True)
    begin, told = time.time(), time.time()
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        runs = {pool.submit(runner.run, *item): item for item in todo}
        for number, ended in enumerate(concurrent.futures.as_completed(runs), 1):
            _, wrong, outcome, _ = ended.result()
            log.add(*runs[ended], outcome, wrong)
            if wrong:
                print("WRONG " + wrong, flush=True)
            if time.time() - told > 60:
                told = time.time()
                print(f"fault sweep: {number} of {len(todo)} runs in {told - begin:.0f} s", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stride", type=int, default=int(os.environ.get("LONGSPAN_FAULT_STRIDE", "0")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("LONGSPAN_FAULT_SEED", "0")))
    # More than cores: starts and waits for the watchdog leave them idle.
    parser.add_argument("--jobs", type=int, default=3 * len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--call", type=int, default=0)
    parser.add_argument("--log", help="note the runs in this file, and leave out those that are in it")
    parser.add_argument("--again", action="store_true", help="repeat those of the log that were wrong")
    parser.add_argument("--list", action="store_true", help="only tell how many calls there are")
    asked = parser.parse_args()
    seed = asked.seed or random.SystemRandom().randrange(1, 1 << 30)
    stride = asked.stride or 80
    check_complete()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # folders are removed
    log, begin = Log(asked.log, asked.again), time.time()
    with tempfile.TemporaryDirectory(prefix="longspan-fault-") as folder:
        runner = Runner(folder)
        work = plan(runner, asked, stride, seed)
        if asked.list:
            return 0
        print(f"fault sweep: stride {stride}, seed {seed}", flush=True)
        sweep(runner, work, log, asked.jobs)
    table, wrongs = collections.defaultdict(collections.Counter), 0
    for case, call in work:
        outcome, wrong = log.done[str(case), call]
        table[case][outcome + (" (wrong)" if wrong else "")] += 1
        wrongs += bool(wrong)
    for case, outcomes in table.items():
        print(f"{case}: " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())))
    print(f"fault sweep: {len(work)} runs, {wrongs} wrong, in {time.time() - begin:.0f} s")
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
