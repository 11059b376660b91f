"""A broker with --curve: who is let in, what each may do, and that tenants know nothing of each other."""
import contextlib
import os
import pathlib
import re
import stat
import subprocess
import time

import msgpack
import pytest
import zmq
import zmq.auth

from real_broker import (ACCEPTED, CANCEL, DRAIN, EVENT, EVENTS, EVENTS_STOP, HEARTBEAT, JOB, LIST, LONG_S,
                         PING, PONG, QUEUES, REFUSED, REGISTER, REGISTERED, RESULT_GET, SHOW, STAGE_ACK,
                         STAGE_DONE, STATE, STATUS, SUBMIT, SUBMIT_MANY, SUBSCRIBE, WAIT,
                         WORKERS, Broker, Client, EchoWorker, Worker, body, dealer, echo, frames)

import penstock as client_library

BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])
NOBODY = "0" * 12 + "1"  # 0 is no id
SOON_S = 1.0  # what should not come is waited for so long


def penstock(*args, env=None, code=0):
    done = subprocess.run([BIN / "penstock", *map(str, args)], capture_output=True, text=True,
                          timeout=60, env=env)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


class Peer:
    """Somebody who may connect: takes the place of the broker for Client and Worker."""

    def __init__(self, broker, key):
        self.clients, self.workers, self.key = broker.clients, broker.workers, key


class SecureBroker(Broker):
    """A broker with --curve; `add` lets a key in and returns its Peer."""

    def __init__(self, root, *pipelines, **options):
        self.keys = pathlib.Path(root) / "keys"
        penstock("keys", "init", "--keys", self.keys)
        self.server = zmq.auth.load_certificate(str(self.keys / "broker.cert"))[0]
        self.key = self.add("root", "submit,read,admin", broker=False)
        super().__init__(root, *pipelines, extra=["--curve"], **options)

    def add(self, name, rights="submit,read", tenant=None, broker=True):
        penstock("keys", "add", name, "--keys", self.keys, "--rights", rights,
                 "--tenant", tenant or name)
        key = (*zmq.auth.load_certificate(str(self.keys / f"{name}.cert_secret")), self.server)
        return Peer(self, key) if broker else key

    def until_logged(self, event, n=1):
        until = time.monotonic() + LONG_S
        while self.log.read_text().count(f"event={event}") < n:
            assert time.monotonic() < until, f"{event} is not in the log:\n{self.log.read_text()}"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with SecureBroker(tmp_path_factory.mktemp("s"), echo(), lease_ms=2000) as broker:
        broker.a, broker.b = broker.add("a"), broker.add("b")
        broker.reader = broker.add("reader", "read", tenant="a")
        broker.writer = broker.add("writer", "submit", tenant="a")
        broker.w = broker.add("w", "worker:test.echo,worker:infer.*")
        yield broker


def answers(broker, timeout_s=LONG_S):
    """Whether a PING is answered at all."""
    with Client(broker) as c:
        got = c.ask(PING, {}, timeout_s=timeout_s)
        return got is not None and got[0] == PONG


# ---- who is let in ----

def test_a_known_key_is_let_in_and_an_unknown_one_is_not(shared):
    assert answers(shared.a)
    stranger = (*zmq.curve_keypair(), shared.server)
    assert not answers(Peer(shared, stranger), SOON_S)
    shared.until_logged("key_unknown")


def test_without_a_key_nobody_speaks_with_the_broker(shared):
    assert not answers(Peer(shared, None), SOON_S)
    with Client(Peer(shared, None)) as c:
        c.raw(b"no penstock at all")
        assert c.receive(SOON_S) is None
    assert answers(shared.a)


def test_a_client_notices_a_server_that_is_not_the_brokers(shared):
    public, secret, _ = shared.a.key
    other = zmq.curve_keypair()[0]
    assert not answers(Peer(shared, (public, secret, other)), SOON_S)


def test_the_public_key_alone_lets_nobody_in(shared):
    public, _, server = shared.a.key
    assert not answers(Peer(shared, (public, zmq.curve_keypair()[1], server)), SOON_S)


def test_a_key_is_let_in_and_revoked_while_the_broker_runs(shared):
    late = shared.add("late")
    with Client(late) as c:
        job = c.submit()
        assert c.show(job)["tenant"] == "late"
        events = c.send(EVENTS, {"job": job})
        assert c.answer(events)[0] == EVENT
        waits = c.send(WAIT, {"job": job, "timeout_ms": 60000})
        gone = shared.log.read_text().count("event=key_revoked")
        penstock("keys", "revoke", "late", "--keys", shared.keys)
        shared.until_logged("key_revoked", gone + 1)
        for code, header, *payload in one_of_each(job):
            if code == EVENTS_STOP:
                continue
            assert c.refused(code, header, *payload)["code"] == "revoked", code
        with Client(shared) as root:
            assert root.ask(CANCEL, {"job": job})[0] == STATE
        assert c.answer(waits, SOON_S) is None and c.answer(events, SOON_S / 4) is None
    assert not answers(late, SOON_S)


def test_a_workers_leases_are_taken_back_when_its_key_is_revoked(shared):
    with Client(shared.a) as c:
        job = c.submit(priority=0)
        with Worker(shared.add("w-late", "worker:test.echo"), credit=1) as bad:
            lease, _ = bad.lease()
            assert lease["job"] == job
            penstock("keys", "revoke", "w-late", "--keys", shared.keys)
            with Worker(shared.w, credit=1) as good:
                again, _ = good.lease()
                assert again["job"] == job
                bad.send(STAGE_DONE, {"job": job, "stage": 0, "attempt": lease["attempt"]},
                         msgpack.packb({"by": "the revoked"}))
                h, _, _ = bad.expect(REFUSED, STAGE_ACK)
                assert h["code"] == "revoked"
                assert good.done(again, msgpack.packb({"by": "the good"})) == "recorded"
        assert c.wait(job)[1] == {"by": "the good"}
        assert c.show(job)["deaths"] == 0


def test_a_key_that_moves_to_another_tenant_is_somebody_else(shared):
    mover = shared.add("mover")
    with Client(mover) as c:
        job = c.submit()
        path = shared.keys / "mover.cert"
        path.write_text(path.read_text().replace('tenant = "mover"', 'tenant = "elsewhere"'))
        until = time.monotonic() + LONG_S
        while (got := c.ask(PING, {}))[0] == PONG:
            assert time.monotonic() < until
        assert got[1]["code"] == "revoked"
    with Client(mover) as c:
        assert c.refused(SHOW, {"job": job})["code"] == "unknown_job"


def test_rights_that_change_count_for_open_connections(shared):
    peer = shared.add("grows", "read")
    with Client(peer) as c:
        assert c.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())["code"] == "forbidden"
        path = shared.keys / "grows.cert"
        path.write_text(path.read_text().replace('"read"', '"submit,read"'))
        until = time.monotonic() + LONG_S
        while c.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())[0] != ACCEPTED:
            assert time.monotonic() < until


def test_a_certificate_that_cannot_be_read_is_left_out_and_harms_nobody(shared):
    broken = shared.keys / "broken.cert"
    before = shared.log.read_text().count("event=key_refused")
    broken.write_text("curve\n    public-key = \"too short\"\n")
    shared.until_logged("key_refused", before + 1)
    assert answers(shared.a)
    broken.unlink()


# ---- rights ----

def one_of_each(job):
    """(code, header, payload...) of every request of a client, about this job where there is one."""
    table = (pathlib.Path(__file__).parents[2] / "schemas" / "msg.def").read_text()
    for name, code, least, text in re.findall(
            r"^MSG\((\w+), \w+, (0x\w+), C2B, (\d+),.*\n((?:  .*\n)+)", table, re.M):
        header = {"job": job} if re.search(r"ID\(job, ", text) else {}
        payload = (b"x",) * int(least)
        if name == "WAIT":
            header["timeout_ms"] = 200
        if name == "LIST":
            header["before"] = job
        if name == "SUBMIT":
            header, payload = {"kind": "text.embed", "pipeline": "echo"}, (body(),)
        if name == "SUBMIT_MANY":
            header = {"kind": "text.embed", "pipeline": "echo"}
            payload = (msgpack.packb([{"texts": ["x"]}]),)
        if name == "EVENTS_STOP":
            yield EVENTS_STOP, {}
            continue
        yield int(code, 16), header, *payload


def test_each_right_allows_its_requests_and_no_other(shared):
    needs_read = {WAIT, RESULT_GET, SHOW, EVENTS, LIST, WORKERS, STATUS, SUBSCRIBE}
    needs_admin = {QUEUES, DRAIN}
    seen = set()
    with Client(shared.reader) as reader, Client(shared.writer) as writer, \
            Client(shared.w) as worker, Client(shared) as root:
        job = writer.submit()
        for code, header, *payload in one_of_each(job):
            if code == EVENTS_STOP:
                continue
            seen.add(code)
            assert worker.refused(code, header, *payload)["code"] == "forbidden", code
            mine, other = (reader, writer) if code in needs_read else (writer, reader)
            if code in needs_admin:
                assert writer.refused(code, header, *payload)["code"] == "forbidden", code
                mine = root
            if code != PING:
                refusal = other.refused(code, header, *payload)
                assert refusal["code"] == "forbidden" and refusal["fix"], code
            got = mine.ask(code, header, *payload)
            assert got[0] != REFUSED or got[1]["code"] not in ("forbidden", "revoked"), (code, got)
    assert seen >= needs_read | needs_admin | {SUBMIT, SUBMIT_MANY, CANCEL, PING}


def test_what_a_message_carries_needs_the_same_rights_as_alone(shared):
    items = [[SUBMIT, msgpack.packb({"req": 1, "kind": "text.embed", "pipeline": "echo"}), body()],
             [DRAIN, msgpack.packb({"req": 2, "worker": "w"})], [PING, msgpack.packb({"req": 3})]]
    with Client(shared.reader) as c:
        c.raw(*frames(0x70, {"n": len(items)}, msgpack.packb(items)))
        code, _, payload = c.receive()
        assert code == 0x70
        refused = {h["req"]: h["code"] for h in (msgpack.unpackb(item[1]) for item in msgpack.unpackb(payload))}
        assert refused == {1: "forbidden", 2: "forbidden"}
        assert c.receive()[0] == PONG


def test_a_clients_key_can_do_nothing_on_the_workers_socket(shared):
    for peer in (shared.a, shared):
        socket = dealer(peer)
        socket.connect(shared.workers)
        try:
            for code, header in ((REGISTER, {"session": "s", "name": "n", "runs": ["test.echo"], "credit_jobs": 1}),
                                 (HEARTBEAT, {"session": "s", "epoch": 1})):
                socket.send_multipart(frames(code, header))
                assert socket.poll(LONG_S * 1000)
                tag, answer = socket.recv_multipart()
                assert tag[3] == REFUSED and msgpack.unpackb(answer)["code"] == "forbidden"
        finally:
            socket.close()


def test_a_worker_registers_only_the_stages_that_its_key_names(shared):
    socket = dealer(shared.w)
    socket.connect(shared.workers)

    def register(*runs):
        socket.send_multipart(frames(REGISTER, {"session": "r", "name": "n", "runs": runs, "credit_jobs": 1}))
        assert socket.poll(LONG_S * 1000)
        tag, answer = socket.recv_multipart()
        return tag[3], msgpack.unpackb(answer)

    try:
        for runs in (["post.embed"], ["test.echo", "post.embed"], ["test.echo2"], ["infer"]):
            code, h = register(*runs)
            assert (code, h["code"], h["field"]) == (REFUSED, "forbidden", "runs"), runs
        assert register("infer.embed", "infer.generate")[0] == REGISTERED
        socket.send_multipart(frames(0x87, {"session": "r"}))
    finally:
        socket.close()


def test_a_worker_cannot_speak_for_the_lease_or_the_session_of_another(shared):
    other_key = shared.add("w2", "worker:test.echo")
    with Client(shared.a) as c, contextlib.ExitStack() as stack:
        job = c.submit(priority=0)  # before all that other tests have left
        holder = stack.enter_context(Worker(shared.w, credit=1))
        lease, _ = holder.lease()
        assert lease["job"] == job
        for peer in (other_key, shared.w):  # another key, and another worker of the same key
            with Worker(peer, "test.echo", credit=1) as thief:
                thief.send(STAGE_DONE, {"job": job, "stage": 0, "attempt": lease["attempt"]},
                           msgpack.packb({"by": "the thief"}))
                assert thief.expect(STAGE_ACK)[0]["verdict"] == "stale"
                thief.send(0x87, {"session": thief.session})
        socket = dealer(other_key)
        socket.connect(shared.workers)
        socket.send_multipart(frames(HEARTBEAT, {"session": holder.session, "epoch": holder.epoch}))
        assert socket.poll(LONG_S * 1000)
        assert socket.recv_multipart()[0][3] == 0xC2  # REREGISTER: this session is not its own
        socket.close()
        assert holder.done(lease, msgpack.packb({"by": "the holder"})) == "recorded"
        assert c.wait(job)[1] == {"by": "the holder"}


def test_a_worker_that_connects_anew_keeps_its_leases_once_it_has_beaten(shared):
    with Client(shared.a) as c, contextlib.ExitStack() as stack:
        job = c.submit(priority=0)
        w = stack.enter_context(Worker(shared.w, credit=1))
        lease, _ = w.lease()
        assert lease["job"] == job
        w.socket.close()
        w.socket = dealer(shared.w)
        w.socket.connect(shared.workers)
        done = {"job": job, "stage": 0, "attempt": lease["attempt"]}
        w.send(STAGE_DONE, done, msgpack.packb({"n": 1}))  # too early: nothing is known of this connection
        assert w.receive(SOON_S / 2) is None
        w.beat()
        w.expect(REGISTERED)  # which asks for everything again
        assert w.done(lease, msgpack.packb({"n": 2})) == "recorded"
        assert c.wait(job)[1] == {"n": 2}


# ---- tenants ----

def exact(client, code, header, *payload):
    """Every byte of the answer but for `req`, and how long it took."""
    began = time.perf_counter()
    got = client.ask(code, header, *payload)
    took = time.perf_counter() - began
    if code == EVENTS:
        client.send(EVENTS_STOP, {})
    return (got[0], {k: v for k, v in got[1].items() if k != "req"}, got[2]), took


def blank(answer, *ids):
    """The answer with these ids struck out."""
    text = repr(answer)
    for one in ids:
        text = text.replace(one, "ID")
    return text


@pytest.mark.parametrize("state", ["live", "delayed", "done", "cancelled"])
def test_another_tenants_job_is_answered_as_one_that_does_not_exist(shared, state):
    with Client(shared.a) as a, Client(shared.b) as b, contextlib.ExitStack() as stack:
        job = a.submit(delay_ms=600000 if state == "delayed" else 0)
        if state == "done":
            stack.enter_context(EchoWorker(shared.w))
            a.wait(job)
        if state == "cancelled":
            a.ask(CANCEL, {"job": job})
        about, shown = 0, a.show(job)
        for (code, header, *payload), (_, nobody, *_) in zip(one_of_each(job), one_of_each(NOBODY)):
            if "job" not in header:
                continue
            about += 1
            theirs, _ = exact(b, code, header, *payload)
            none, _ = exact(b, code, nobody, *payload)
            assert "unknown_job" in repr(theirs), (code, theirs)
            assert blank(theirs, job, NOBODY) == blank(none, job, NOBODY), code
        assert about >= 5
        assert {k: a.show(job)[k] for k in ("state", "reason", "stage")} == {
            k: shown[k] for k in ("state", "reason", "stage")}, "asking about it changed it"


def test_lists_and_figures_show_a_tenant_its_own_alone(shared):
    with Client(shared.a) as a, Client(shared.b) as b, Client(shared) as root, \
            Worker(shared.w, "infer.none", name="seen"):
        mine = {b.submit() for _ in range(3)}
        theirs = {a.submit() for _ in range(3)}

        def listed(client, **fields):
            found, before = [], None
            while True:
                h = client.ask(LIST, dict(fields, **({"before": before} if before else {})))[1]
                found += [row["job"] for row in h["jobs"]]
                before = h.get("next")
                if not before:
                    return found

        seen = listed(b, limit=2)
        assert mine <= set(seen) and not theirs & set(seen)
        assert seen == sorted(seen, reverse=True)
        assert all(b.ask(SHOW, {"job": job})[0] == JOB for job in seen)
        newest = b.ask(LIST, {"limit": 1})[1]
        assert newest.get("next", min(seen)) in seen, "the next page begins at a job of one's own"
        assert theirs | mine <= set(listed(root))
        counts = b.ask(STATUS, {})[1]["stats"]
        live = sum(counts["jobs"][s] for s in ("accepted", "ready", "delayed", "leased"))
        assert live == sum(1 for job in seen if b.state(job) in ("accepted", "ready", "delayed", "leased"))
        assert set(counts) == {"uptime_ms", "accepting", "epoch", "jobs", "tenants", "sources"}
        assert [row["name"] for row in counts["tenants"]] == ["b"]
        assert b.refused(QUEUES, {})["code"] == "forbidden"
        assert root.ask(QUEUES, {})[1]["queues"]
        assert "stored_jobs" in root.ask(STATUS, {})[1]["stats"]
        assert b.ask(WORKERS, {})[1]["workers"] == []
        assert "seen" in [w["name"] for w in root.ask(WORKERS, {})[1]["workers"]]


def test_idempotency_keys_belong_to_a_tenant(shared):
    fields = {"kind": "text.embed", "pipeline": "echo", "key": "order-7"}
    with Client(shared.a) as a, Client(shared.b) as b:
        _, first, _ = a.ask(SUBMIT, fields, body("one"))
        code, second, _ = b.ask(SUBMIT, fields, body("two"))
        assert code == ACCEPTED and second["job"] != first["job"] and not second.get("existing")
        _, again, _ = a.ask(SUBMIT, fields, body("one"))
        assert again["existing"] and again["job"] == first["job"]


def test_tenants_survive_a_restart(tmp_path):
    with SecureBroker(tmp_path, echo()) as broker:
        a, b = broker.add("a"), broker.add("b")
        with Client(a) as c:
            job = c.submit()
        broker.kill()
        broker.start()
        with Client(a) as one, Client(b) as two:
            assert one.show(job)["tenant"] == "a"
            assert two.refused(SHOW, {"job": job})["code"] == "unknown_job"
            assert [r["job"] for r in one.ask(LIST, {})[1]["jobs"]] == [job]
            assert two.ask(LIST, {})[1]["jobs"] == []
        broker.stop()
        penstock("store", "check", "--dir", broker.dir)


# ---- programs ----

def test_the_command_line_and_the_worker_connect_over_tcp_with_their_keys(tmp_path):
    with SecureBroker(tmp_path, echo()) as broker:
        broker.add("cli", "submit,read,admin")
        broker.add("box", "worker:*")
        broker.stop()
        with zmq.Context() as context, context.socket(zmq.DEALER) as probe:
            port = probe.bind_to_random_port("tcp://127.0.0.1")
        broker.clients, broker.workers = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1}"
        broker.start("--listen", f"tcp://0.0.0.0:{port}")
        cert = broker.keys / "broker.cert"
        env = dict(os.environ, PENSTOCK_ENDPOINT=broker.clients, PENSTOCK_SERVER_KEY=str(cert),
                   PENSTOCK_KEY=str(broker.keys / "cli.cert_secret"))
        worker = subprocess.Popen([BIN / "penstock-worker", "--broker", broker.workers, "--stages",
                                   "test.echo", "--key", broker.keys / "box.cert_secret",
                                   "--server-key", broker.server.decode()], stderr=subprocess.DEVNULL)
        try:
            done = penstock("submit", "text.embed", "--text", "x", "--pipeline", "echo", "--wait",
                            "--timeout", "30", env=env)
            assert done.stdout
            plain = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_KEY")}
            asked = penstock("ping", "-e", broker.clients, "--key-file", broker.keys / "cli.cert_secret",
                             "--server-key", cert, env=plain)
            assert "accepting" in asked.stdout
            penstock("ping", "-e", broker.clients, "-t", "1", env=plain, code=3)
            assert ", 1 worker\n" in penstock("status", env=env).stdout
            broker.add("own", "submit,read")
            own = penstock("status", env=dict(env, PENSTOCK_KEY=str(broker.keys / "own.cert_secret"))).stdout
            assert "jobs" in own and "store" not in own and "workers" not in own
            seen = penstock("worker", "ls", env=dict(env, PENSTOCK_KEY=str(broker.keys / "own.cert_secret")))
            assert "right admin" in seen.stderr and "test.echo" not in seen.stdout, seen
        finally:
            worker.terminate()
            worker.wait(LONG_S)


def test_plain_tcp_beyond_this_machine_is_refused_with_the_fix(tmp_path):
    for program, *args in (("penstock-broker", "--dir", tmp_path, "--listen", "tcp://0.0.0.0:7999"),
                           ("penstock", "ping", "-e", "tcp://192.0.2.1:7999")):
        done = subprocess.run([BIN / program, *map(str, args)], capture_output=True, text=True, timeout=30)
        assert done.returncode != 0 and "plain tcp:// is allowed on loopback only" in done.stderr
        assert "penstock keys" in done.stderr


def test_keys_are_made_listed_and_revoked_with_the_right_modes(tmp_path):
    keys = tmp_path / "keys"
    penstock("keys", "add", "x", "--keys", keys, code=2)  # the broker's own come first
    penstock("keys", "init", "--keys", keys)
    assert "the broker has its keys already" in penstock("keys", "init", "--keys", keys, code=2).stderr
    told = penstock("keys", "add", "line-2", "--keys", keys, "--tenant", "factory",
                    "--rights", "submit,worker:infer.embed,worker:post.*").stderr
    assert f"{keys}/line-2.cert_secret" in told and "broker.cert" in told and "factory" in told
    for path in keys.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o600 if path.name.endswith("_secret") else 0o644), path
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert zmq.auth.load_certificate(str(keys / "line-2.cert_secret"))[1], "pyzmq and czmq read them"
    listed = penstock("keys", "ls", "--keys", keys).stdout
    assert re.search(r"line-2 +factory +submit,worker:infer.embed,worker:post\.\*", listed)
    penstock("keys", "revoke", "line-2", "--keys", keys)
    assert sorted(p.name for p in keys.iterdir()) == ["broker.cert", "broker.cert_secret"]
    penstock("keys", "revoke", "line-2", "--keys", keys, code=1)
    for wrong in (("add", "../x"), ("add", "broker"), ("add", "ok", "--rights", "worker"),
                  ("add", "ok", "--rights", "fly"), ("add", "ok", "--tenant", "default"),
                  ("revoke", "broker"), ("revoke", "../x")):
        penstock("keys", *wrong, "--keys", keys, code=2)


def test_secrets_that_others_can_read_are_not_used(tmp_path):
    keys = tmp_path / "keys"
    penstock("keys", "init", "--keys", keys)
    (keys / "broker.cert_secret").chmod(0o644)
    done = subprocess.run([BIN / "penstock-broker", "--dir", tmp_path, "--curve"], capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 1 and "chmod 600" in done.stderr
    (keys / "broker.cert_secret").chmod(0o600)
    keys.chmod(0o777)
    done = subprocess.run([BIN / "penstock-broker", "--dir", tmp_path, "--curve"], capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 1 and "chmod go-w" in done.stderr


def test_the_python_client_proves_its_key(shared, monkeypatch):
    own, server = shared.keys / "a.cert_secret", shared.keys / "broker.cert"
    with client_library.Client(shared.clients, key=str(own), server_key=str(server)) as client:
        assert client.ping().accepting
        job = client.submit("text.embed", {"texts": ["x"]}, pipeline="echo")
        assert client.show(job)["tenant"] == "a"
    monkeypatch.setenv("PENSTOCK_KEY", str(own))
    monkeypatch.setenv("PENSTOCK_SERVER_KEY", shared.server.decode())
    with client_library.Client(shared.clients) as client:
        assert client.ping().accepting
    monkeypatch.delenv("PENSTOCK_SERVER_KEY")
    with pytest.raises(client_library.Invalid):
        client_library.Client(shared.clients)
