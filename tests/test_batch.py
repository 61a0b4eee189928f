import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hdrcli.batch import executors, memory, plan, run, session
from hdrcli.batch.outcomes import OutcomeLog
from hdrcli.batch.stamp import difference, stamp
from hdrcli.batch.watch import settled_plans
from hdrcli.batch.work import run_job
from hdrcli.errors import InputError, ResourceError, SetupError
from hdrcli.pipeline import MergeOptions, merge_files
from tests.cards import write_set

QUICK = ("--align", "none", "--deghost", "none")
OPTIONS = MergeOptions(align="none", deghost="none")


class Here:
    """A place in this process: the same jobs, without the start of another Python."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(1)
        self.closed = False

    def room(self, running, job):
        return not running

    def refused(self, job):
        return None

    def submit(self, job):
        return self.pool.submit(run_job, job, threads=1)

    def again(self, job, outcome):
        return False

    def restart(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def card(tmp_path):
    folder = tmp_path / "card"
    for i in range(3):
        write_set(folder / f"day{i % 2}", 1 + 3 * i, 60 * i, seed=i)
    return folder


def request(card, out, **changes):
    naming = plan.Naming(out, **changes.pop("naming", {}))
    return session.Request((card,), naming, options=changes.pop("options", OPTIONS), **changes)


def merge_all(card, out, resume=True, **changes):
    asked = request(card, out, **changes)
    found = session.find_plan(asked)
    todo = run.todo_of(found, out, resume=resume, overwrite=asked.options.overwrite)
    heard: list[dict[str, Any]] = []
    session.execute(todo.jobs, out, Here(), heard.append)
    return heard


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".exr", ".jpg", ".hdr")
    }


# ---- what is made ----------------------------------------------------------------------------


def test_a_card_becomes_files_in_the_same_folders(card, tmp_path):
    out = tmp_path / "out"
    heard = merge_all(card, out)
    assert {o["status"] for o in heard} == {"done"}
    assert sorted(digests(out)) == [
        "day0/IMG_0001-0003_hdr.exr",
        "day0/IMG_0001-0003_hdr_preview.jpg",
        "day0/IMG_0007-0009_hdr.exr",
        "day0/IMG_0007-0009_hdr_preview.jpg",
        "day1/IMG_0004-0006_hdr.exr",
        "day1/IMG_0004-0006_hdr_preview.jpg",
    ]
    assert not (out / run.FOLDER / run.BEGUN).exists()


def test_every_outcome_is_a_line_with_what_was_found(card, tmp_path):
    merge_all(card, tmp_path / "out")
    lines = list(OutcomeLog(tmp_path / "out").lines())
    assert len(lines) == 3
    for line in lines:
        assert line["evs"] == pytest.approx([-2, 0, 2], abs=0.02)
        assert line["backend"]
        assert line["seconds_total"] > 0
        assert all(Path(name).is_file() for name in line["outputs"])
        assert "pictures" not in line


def test_one_bad_set_stops_nothing(card, tmp_path):
    bad = card / "day1" / "IMG_0005.jpg"
    bad.write_bytes(bad.read_bytes()[:900])
    heard = merge_all(card, tmp_path / "out")
    failed = [o for o in heard if o["status"] == "failed"]
    assert len(heard) == 3
    assert len(failed) == 1
    assert "IMG_0005.jpg" in failed[0]["error"]["message"]
    assert failed[0]["error"]["hint"]
    assert failed[0]["outputs"] == []


def test_a_bug_in_one_set_stops_nothing_and_keeps_its_traceback(card, tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("hdrcli.batch.work.merge_files", broken)
    heard = merge_all(card, tmp_path / "out")
    assert [o["error"]["type"] for o in heard] == ["ZeroDivisionError"] * 3
    assert "Traceback" in heard[0]["error"]["traceback"]


def test_several_kinds_and_one_scale_for_all(card, tmp_path):
    out = tmp_path / "out"
    options = MergeOptions(align="none", deghost="none", anchor="absolute", preview=False)
    merge_all(card, out, options=options, naming={"kinds": ("hdr", "jpg"), "template": "{index}"})
    assert sorted(digests(out)) == [
        f"day{d}/{n}.{kind}" for d, n in ((0, 1), (0, 2), (1, 3)) for kind in ("hdr", "jpg")
    ]


def test_files_do_not_depend_on_how_the_batch_was_called(card, tmp_path, monkeypatch):
    merge_all(card / "day1", tmp_path / "a")
    monkeypatch.setattr(sys, "argv", ["dask", "worker", "tcp://somewhere"])
    merge_all(card / "day1", tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


# ---- again -----------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(card, tmp_path):
    out = tmp_path / "out"
    merge_all(card, out)
    before = digests(out)
    assert merge_all(card, out) == []
    assert digests(out) == before


def test_only_what_failed_is_tried_again(card, tmp_path):
    bad = card / "day1" / "IMG_0005.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:900])
    merge_all(card, tmp_path / "out")
    bad.write_bytes(good)
    assert [o["status"] for o in merge_all(card, tmp_path / "out")] == ["done"]


def test_a_changed_photograph_is_noticed_and_nothing_is_replaced_unasked(card, tmp_path):
    out = tmp_path / "out"
    merge_all(card, out)
    changed = card / "day1" / "IMG_0005.jpg"
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(InputError, match="photographs have changed"):
        merge_all(card, out)
    options = MergeOptions(align="none", deghost="none", overwrite=True)
    assert [o["name"] for o in merge_all(card, out, options=options)] == ["IMG_0004-0006_hdr"]


def test_other_options_are_noticed(card, tmp_path):
    merge_all(card / "day1", tmp_path / "out")
    with pytest.raises(InputError, match="other options"):
        merge_all(card / "day1", tmp_path / "out", options=MergeOptions(align="none"))


def test_a_file_that_no_batch_made_is_never_replaced(card, tmp_path):
    target = tmp_path / "out" / "day0" / "IMG_0001-0003_hdr.exr"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="not of this batch"):
        merge_all(card, tmp_path / "out")
    assert target.read_bytes() == b"mine"


def test_without_resume_everything_there_is_in_the_way(card, tmp_path):
    merge_all(card / "day1", tmp_path / "out")
    with pytest.raises(InputError, match="exists"):
        merge_all(card / "day1", tmp_path / "out", resume=False)


def test_a_missing_output_is_made_again(card, tmp_path):
    out = tmp_path / "out"
    merge_all(card, out)
    before = digests(out)
    (out / "day0" / "IMG_0001-0003_hdr_preview.jpg").unlink()
    assert len(merge_all(card, out)) == 1
    assert digests(out) == before


def test_what_a_killed_batch_left_is_its_own_even_after_another_batch(card, tmp_path):
    out = tmp_path / "out"
    jobs = run.todo_of(session.find_plan(request(card, out)), out).jobs
    run.begin(out, jobs)
    (out / "day0" / "IMG_0001-0003_hdr.exr").write_bytes(b"of a batch that was killed")
    merge_all(card / "day1", out)
    assert sum(o["status"] == "done" for o in merge_all(card, out)) == 3


def test_what_a_merge_by_hand_left_is_not_taken_for_a_photograph(card):
    """Who tries the program on one bracket has its preview among the photographs then."""
    first, *_ = session.find_plan(request(card, card / "out")).jobs
    by_hand = MergeOptions(backend="average")
    outcome = merge_files(first.paths, [first.paths[0].with_name("try.exr")], by_hand)
    found = session.find_plan(request(card, card / "out"))
    assert found.jobs[0].paths == first.paths
    assert found.left_out == ((outcome.outputs[1].resolve(), "hdrcli made it of a bracket"),)
    again = merge_files(
        [*first.paths, outcome.outputs[1]], [first.paths[0].with_name("again.exr")], by_hand
    )
    assert any("try_preview.jpg is no photograph" in said for said in again.warnings)


def test_raw_files_are_named_where_there_is_nothing_else(tmp_path):
    for name in ("IMG_1.CR3", "IMG_2.cr3", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"only cameras' raw files .* 2 of them") as caught:
        session.find_plan(request(tmp_path, tmp_path / "out"))
    assert "16-bit TIFF" in str(caught.value.hint)


def test_outputs_in_the_same_folder_are_not_taken_for_photographs(card):
    merge_all(card, card)
    found = session.find_plan(request(card, card))
    assert len(found.jobs) == 3
    assert found.singles == ()


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_what_a_batch_begins_need_not_have_a_name_that_is_text(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.exr")
    job = plan.Job(1, "cafe", (), (path,), MergeOptions())
    run.begin(tmp_path, [job])
    run.begin(tmp_path, [job])
    run.finish(tmp_path, [job])
    assert list((tmp_path / run.FOLDER).iterdir()) == []


def test_a_torn_line_of_the_log_is_cut_off(tmp_path):
    log = OutcomeLog(tmp_path)
    log.append({"target": "a", "outputs": []})
    with log.path.open("ab") as file:
        file.write(b'{"target": "b", "outp')
    log.repair()
    log.append({"target": "c", "outputs": []})
    assert [line["target"] for line in log.lines()] == ["a", "c"]


def test_a_stamp_tells_what_has_changed(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x" * 300_000)
    status = file.stat()

    def now(**options):
        return stamp([file], [tmp_path / "o.exr"], MergeOptions(**options))

    old = now()
    assert difference(old, now(threads=7)) is None
    assert difference(old, now(backend="debevec")) == "it was made with other options"
    file.write_bytes(b"x" * 299_999 + b"y")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert difference(old, now()) == "the photographs have changed"
    assert "0.0.1" in (difference(now() | {"version": "0.0.1"}, now()) or "")


def test_two_batches_do_not_write_one_folder(tmp_path):
    def refused():
        try:
            with run.alone(tmp_path):
                return None
        except SetupError as err:
            return str(err)

    with run.alone(tmp_path):
        said = refused()
    assert said is not None
    assert "another batch" in said
    assert refused() is None


# ---- plans -----------------------------------------------------------------------------------


def test_collisions_are_found_before_the_work(card, tmp_path):
    with pytest.raises(InputError, match="two sets would be written"):
        session.find_plan(request(card, tmp_path / "out", naming={"template": "same"}))


def test_an_output_that_is_a_photograph_is_refused(card):
    naming = {"template": "{first}", "kinds": ("jpg",)}
    with pytest.raises(InputError, match="one of the photographs"):
        session.find_plan(request(card, card, naming=naming))


def test_a_plan_comes_back_as_it_was_and_as_it_was_edited(card, tmp_path):
    out = tmp_path / "out"
    found = session.find_plan(request(card, out))
    data = plan.as_dict(found)
    path = tmp_path / "sets.json"
    path.write_text(json.dumps(data))
    again = session.find_plan(request(card, out, sets=path))
    assert [job.outputs for job in again.jobs] == [job.outputs for job in found.jobs]
    assert [job.options for job in again.jobs] == [job.options for job in found.jobs]
    moved = data["sets"][0]["files"].pop()
    data["sets"][0] |= {"ev": [0, -1.5], "outputs": [str(out / "mine.exr")]}
    data["sets"][1] |= {"files": [*data["sets"][1]["files"], moved], "ev": None}
    path.write_text(json.dumps(data))
    edited = session.find_plan(request(card, out, sets=path))
    first, second, _ = edited.jobs
    assert list(first.options.evs or ()) == [0, -1.5]
    assert [str(path) for path in first.outputs] == [str(out / "mine.exr")]
    assert len(second.paths) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no list of sets"),
        ('{"sets": [{"files": "a.jpg"}]}', "not a list of names"),
        ('{"sets": [{"files": ["a.jpg"]}]}', "fewer than two"),
        ('{"sets": [{"files": ["a.jpg", "b.jpg"]}]}', "no such file"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path, text, message):
    path = tmp_path / "sets.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        session.find_plan(request(tmp_path, tmp_path / "out", sets=path))


def test_stops_for_all_sets_need_their_length(card, tmp_path):
    options = MergeOptions(evs=(0, -2, 2))
    with pytest.raises(InputError, match="one length"):
        session.find_plan(request(card, tmp_path, options=options))


# ---- places ----------------------------------------------------------------------------------


def a_job(name="a", pixels=1_000_000, frames=3):
    paths = tuple(Path(f"{name}{i}.jpg") for i in range(frames))
    return plan.Job(
        1, name, paths, (Path("/nowhere") / f"{name}.exr",), MergeOptions(), pixels=pixels
    )


def test_memory_decides_how_many_run_at_once():
    big = a_job(pixels=24_000_000)
    place = executors.Processes(4, 3 * memory.need(big))
    assert place.room([], big)
    assert place.room([big], big)
    assert not place.room([big, big], big)
    assert place.room([a_job(pixels=10_000)], a_job(pixels=10_000))
    assert executors.Processes(1, memory.least(big) - 1).refused(big)
    assert not executors.Processes(1, memory.need(big) - 1).refused(big), "nothing may have moved"


def test_no_worker_fits_into_no_memory():
    with pytest.raises(ResourceError, match="400 MB"):
        executors.processes_for(2, 1 << 20, [a_job()])


def test_a_worker_less_rather_than_a_set_that_does_not_fit():
    job = a_job(pixels=8_000_000)
    place = executors.processes_for(2, memory.need(job) + memory.idle(job) // 2, [job, job])
    assert place.jobs == 1
    assert place.refused(job) is None


def test_a_set_that_needs_more_than_was_thought_runs_again_alone():
    job, other = a_job("a"), a_job("b")
    place = executors.Processes(2, 4 * memory.need(job))
    lack = {"status": "failed", "error": {"of_memory": True}}
    assert place.room([other], job)
    assert place.again(job, lack)
    assert not place.room([other], job)
    assert not place.room([job], other)
    assert not place.again(job, lack)
    assert not place.again(other, {"status": "failed", "error": {"message": "torn"}})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_more_memory_than_allowed_is_no_memory():
    with memory.limited(4 << 30), pytest.raises(MemoryError) as caught:
        np.empty(1 << 30)  # 8 GB
    assert memory.is_lack(caught.value)
    with memory.limited(4 << 30):
        np.empty(1 << 20)
    assert not memory.is_lack(ValueError("torn"))
    assert memory.is_lack(OSError("Failed to write. Unable to run compression routine"))


def test_a_set_alone_has_all_the_memory():
    job = a_job()
    place = executors.Processes(1, 4 * memory.need(job))
    assert not place.again(job, {"status": "failed", "error": {"of_memory": True}})
    assert executors.Processes(2, 4 * memory.need(job)).again(
        job, {"status": "failed", "error": {"of_memory": True}}
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_a_set_without_enough_memory_fails_with_a_cure(card, tmp_path):
    out = tmp_path / "out"
    job = run.todo_of(session.find_plan(request(card, out)), out).jobs[0]
    run.begin(out, [job])
    outcome = run_job(job, threads=1, max_memory=1 << 20)
    assert outcome["status"] == "failed"
    assert outcome["error"]["of_memory"]
    assert "--max-memory" in outcome["error"]["hint"]
    assert not list(out.rglob("*.part*"))


@pytest.mark.parametrize(
    ("text", "size"), [("6G", 6 << 30), ("800M", 800 << 20), ("1.5GB", 3 << 29), ("2k", 2048)]
)
def test_sizes_are_read(text, size):
    assert memory.parse(text) == size


@pytest.mark.parametrize("text", ["", "6X", "-1G", "0", "many"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="--max-memory"):
        memory.parse(text)


class Breaking(Here):
    """A place whose worker dies with certain sets."""

    def __init__(self, deadly, times):
        super().__init__()
        self.left = dict.fromkeys(deadly, times)

    def room(self, running, job):
        return len(running) < 2

    def submit(self, job):
        future: Future[dict[str, Any]] = Future()
        if self.left.get(job.name, 0) > 0:
            self.left[job.name] -= 1
            future.set_exception(BrokenProcessPool("a worker died"))
        elif any(self.left.values()):
            future.set_exception(BrokenProcessPool("and took this one with it"))
        else:
            future.set_result({"name": job.name, "status": "done"})
        return future


@pytest.mark.parametrize(("times", "status"), [(1, "done"), (2, "failed")])
def test_a_dead_worker_costs_at_most_its_own_set(tmp_path, times, status):
    jobs = [plan.Job(i, n, (), (tmp_path / f"{n}.exr",), OPTIONS) for i, n in enumerate("abcd")]
    heard: list[dict[str, Any]] = []
    run.Runner(Breaking({"b"}, times), heard.append).run(jobs)
    found = {o["name"]: o["status"] for o in heard}
    assert len(heard) == 4
    assert found["b"] == status
    assert {found[n] for n in "cd"} == {"done"}


# ---- the command -----------------------------------------------------------------------------


def shell(*args, **kwargs):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "hdrcli", "batch", *map(str, args)],
        capture_output=True, check=False, env=env, **kwargs,
    )  # fmt: skip


def test_a_dry_run_shows_the_sets_and_writes_nothing(hdrcli, card, tmp_path):
    write_set(card, 90, 9000)[0].unlink()
    (card / "IMG_0091.jpg").unlink()
    result = hdrcli("batch", card, "-n")
    assert result.code == 0
    assert "IMG_0005.jpg" in result.out
    assert "-2.0" in result.out
    assert "steps of 2.0 EV" in result.out
    assert "in no set" in result.out
    data = json.loads(hdrcli("batch", card, "-n", "--json", "-o", tmp_path / "o").out)
    assert len(data["sets"]) == 3
    assert not (tmp_path / "o").exists()


def test_the_command_merges_lists_and_ends_with_5_where_some_failed(card, tmp_path):
    bad = card / "day1" / "IMG_0005.jpg"
    bad.write_bytes(bad.read_bytes()[:900])
    names = "\0".join(str(p) for p in sorted(card.rglob("*.jpg"))).encode()
    out = tmp_path / "out"
    result = shell("--files-from", "-", "-o", out, "-j", 1, "--json", *QUICK, input=names)
    assert result.returncode == 5, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(line["status"] for line in lines) == ["done", "done", "failed"]
    assert b"1 of 3 sets failed" in result.stderr
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nowhere", "-o", "o"], 3, "no such file or folder"),
        (["."], 2, "-o OUT is missing"),
        ([".", "-o", "o"], 3, "no photographs"),
        ([".", "-o", "o", "--name", "{nobody}"], 3, "there is no {nobody}"),
        ([".", "-o", "o", "--format", "docx"], 3, "cannot write .docx"),
        ([".", "-o", "o", "--backend", "magic"], 2, "not one of"),
    ],
)
def test_what_cannot_work_is_said_at_once(hdrcli, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    if "--format" in args or "--name" in args:
        write_set(tmp_path, 1, 0)
    result = hdrcli("batch", *args)
    assert result.code == code, result.err
    assert message in result.err
    assert not (tmp_path / "o" / "outcomes.jsonl").exists()


def killed_again_and_again(card, out, kills, dice):
    """Start the batch, kill all of it after a random while, and again; then let it end.

    One that ended before it was killed does not count.
    """
    command = [
        sys.executable,
        "-m",
        "hdrcli",
        "batch",
        str(card),
        "-o",
        str(out),
        "-j",
        "2",
        *QUICK,
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    left, starts, longest = kills, iter(range(4 * kills)), 4.0
    while left and next(starts, None) is not None:
        process = subprocess.Popen(
            command, env=env, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        marker = out / run.FOLDER / run.BEGUN
        while process.poll() is None and not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0, longest))
        longest *= 1.1 if process.poll() is None else 0.7  # to find it at work, at any moment
        if process.poll() is None:
            left -= 1
            # all of it, or the parent alone, whose workers must end by themselves
            if dice.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        yield
    assert left == 0, f"only {kills - left} of {kills} kills found it at work"
    assert shell(card, "-o", out, "-j", 2, *QUICK).returncode == 0


def card_of(folder, sets):
    """Write that many sets of three, a minute apart."""
    for i in range(sets):
        write_set(folder, 1 + 3 * i, 60 * i, seed=i)
    return folder


def killed(tmp_path, kills, sets):
    """The folder that a batch wrote which was killed so often, and what a calm one writes.

    After each kill every file is whole, or not there.
    """
    card = card_of(tmp_path / "card", sets)
    merge_all(card, tmp_path / "calm")
    calm = digests(tmp_path / "calm")
    out, dice = tmp_path / "out", random.Random(3)
    for _ in killed_again_and_again(card, out, kills, dice):
        for name, digest in digests(out).items():
            if not Path(name).name.startswith("."):
                assert digest == calm[name], name
        if len(OutcomeLog(out).latest()) == sets:
            for path in out.glob("IMG_*"):
                path.unlink()  # all done: start over, so that every kill finds work
    return out, calm


@pytest.mark.slow
def test_killed_at_any_moment_only_whole_files_and_a_rerun_finishes(tmp_path):
    out, calm = killed(tmp_path, kills=2, sets=4)
    assert digests(out) == calm
    assert not list(out.rglob("*.part*"))


@pytest.mark.slow
def test_a_hundred_kills(tmp_path):
    out, calm = killed(tmp_path, kills=100, sets=12)
    assert digests(out) == calm
    assert not list(out.rglob("*.part*"))


# ---- watching --------------------------------------------------------------------------------


def test_a_watched_folder_gives_sets_once_they_have_settled(tmp_path):
    folder = tmp_path / "card"
    folder.mkdir()
    asked = request(folder, tmp_path / "out")
    clock = SimpleNamespace(now=time.time(), beats=0)
    seen = []

    def sleep(_seconds):
        clock.beats += 1
        if clock.beats == 1:
            write_set(folder, 1, 0)
        if clock.beats == 3:
            clock.now += 60
        if clock.beats == 5:
            write_set(folder, 4, 60, seed=1)
            clock.now += 60
        if clock.beats > 8:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        for found in settled_plans(asked, 10, sleep=sleep, now=lambda: clock.now):
            seen.append(([job.name for job in found.jobs], clock.beats))
    assert seen == [(["IMG_0001-0003_hdr"], 3), (["IMG_0004-0006_hdr"], 5)]


# ---- a cluster -------------------------------------------------------------------------------


@pytest.mark.slow
def test_dask_on_three_workers_one_of_them_killed(tmp_path):
    pytest.importorskip("distributed")
    card = card_of(tmp_path / "card", 10)
    merge_all(card, tmp_path / "local")
    out = tmp_path / "out"
    with cluster(tmp_path, 3) as (workers, address):
        batch = subprocess.Popen(
            [sys.executable, "-m", "hdrcli", "batch", str(card), "-o", str(out), "--json",
             "--scheduler", address, *QUICK], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert batch.stdout is not None
        batch.stdout.readline()
        workers[0].kill()
        batch.communicate(timeout=300)
        assert batch.returncode == 0
    done = [line["target"] for line in OutcomeLog(out).lines()]
    assert len(done) == len(set(done)) == 10
    assert digests(out) == digests(tmp_path / "local")


@pytest.mark.slow
def test_only_workers_with_the_resource_get_sets(tmp_path):
    pytest.importorskip("distributed")
    card = card_of(tmp_path / "card", 4)
    out = tmp_path / "out"
    with cluster(tmp_path, 2, ["--resources", "GPU=1"]) as (workers, address):
        done = shell(card, "-o", out, "--scheduler", address, "--worker-resource", "GPU=1", *QUICK)
    assert done.returncode == 0, done.stderr
    assert {line["pid"] for line in OutcomeLog(out).lines()} == {workers[-1].pid}


@contextmanager
def cluster(tmp_path, count, last=()):
    """A scheduler and workers on loopback, as processes; ``last``: words for the last worker."""
    dask = [sys.executable, "-m", "dask"]
    home, env = tmp_path / "dask", os.environ | {"OMP_NUM_THREADS": "1"}
    home.mkdir()
    file = home / "scheduler.json"
    start = {"cwd": home, "env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", str(file)], **start,
    )  # fmt: skip
    for _ in range(600):
        if file.exists():
            break
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    words = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    more = [()] * (count - 1) + [last]
    workers = [subprocess.Popen([*words, *own], **start) for own in more]
    try:
        yield workers, address
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def test_a_scheduler_that_does_not_answer_is_named(hdrcli, card, tmp_path, monkeypatch):
    pytest.importorskip("distributed")

    def nobody(address):
        raise SetupError(f"--scheduler {address}: no scheduler answers")

    monkeypatch.setattr("hdrcli.batch.executors._client", nobody)
    result = hdrcli("batch", card, "-o", tmp_path / "o", "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == 4
    assert "no scheduler answers" in result.err


def test_names_from_stdin_by_line(hdrcli, card, tmp_path, monkeypatch):
    names = "\n".join(str(p) for p in sorted(card.rglob("*.jpg")))
    stdin = SimpleNamespace(buffer=io.BytesIO(names.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert len(json.loads(hdrcli("batch", "-", "-n", "--json").out)["sets"]) == 3


# ---- recipes ---------------------------------------------------------------------------------


PAGE = (Path(__file__).parents[1] / "docs" / "batch.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_scripts_of_the_documents_are_scripts():
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        read = subprocess.run(
            ["bash", "-n"], input=block.encode(), capture_output=True, check=False
        )
        assert (read.returncode, read.stderr) == (0, b""), block
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(block, "docs/batch.md", "exec")


SBATCH = """#!/bin/sh
# stands for SLURM: the first job runs here, the others wait in the queue for ever
n=$(ls "$QUEUE" | wc -l)
cp "$1" "$QUEUE/$n.sh"
[ "$n" -gt 0 ] || setsid sh "$QUEUE/0.sh" > "$QUEUE.log" 2>&1 &
echo "Submitted batch job $((100 + n))"
"""


@pytest.mark.slow
def test_the_slurm_example_submits_jobs_that_are_workers(tmp_path):
    pytest.importorskip("dask_jobqueue")
    write_set(tmp_path / "DCIM", 1, 0)
    for name, text in (("sbatch", SBATCH), ("scancel", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "queue").mkdir()
    (tmp_path / "cluster.py").write_text(recipe("# cluster.py"))
    here = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": here, "QUEUE": str(tmp_path / "queue"), "SCRATCH": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", recipe("mkfifo hold")], cwd=tmp_path, capture_output=True, check=False,
        env=os.environ | own | {"HDRCLI_ALIGN": "none"}, timeout=300,
    )  # fmt: skip
    script = (tmp_path / "queue" / "0.sh").read_text()
    assert "#SBATCH --cpus-per-task=4" in script
    assert "OMP_NUM_THREADS=4" in script
    assert "--nthreads 1 " in script
    assert len(list((tmp_path / "merged").rglob("*.exr"))) == 1, done.stderr


def recipe(start):
    """A line or a block of docs/batch.md that begins so."""
    blocks = re.findall(r"```(?:sh|make|python)\n(.*?)```", PAGE, re.DOTALL)
    whole = next((block for block in blocks if block.startswith(start)), None)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(start)]
    return whole or lines[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", ["find DCIM", "ls shoots | xargs", "ls shoots | parallel", "# Makefile"]
)
def test_the_recipes_of_the_documents_run(tmp_path, start):
    tool = {"ls shoots | parallel": "parallel", "# Makefile": "make"}.get(start, "xargs")
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    for folder in ("DCIM", "shoots/a day", "shoots/b"):
        for path in write_set(tmp_path / folder, 1, 0):
            path.rename(path.with_suffix(".JPG"))
    if tool == "make":  # which knows no names with spaces
        (tmp_path / "shoots" / "a day").rename(tmp_path / "shoots" / "a")
        (tmp_path / "Makefile").write_text(recipe(start))
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": here, "OMP_NUM_THREADS": "1", "HDRCLI_ALIGN": "none"}
    words = ["make", "all"] if tool == "make" else ["bash", "-c", recipe(start)]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = 1 if start == "find DCIM" else 2
    assert len(list((tmp_path / "merged").rglob("*.exr"))) == wanted
