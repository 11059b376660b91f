"""A broker's worker socket, driven by a test: no jobs, no store, only messages.

Written from schemas/msg.def: the table gives the codes, the test says what is sent. Waiting for a
message answers heartbeats on the way and records when they came.
"""
import pathlib
import re
import time

import msgpack
import zmq

TABLE = pathlib.Path(__file__).resolve().parents[2] / "schemas" / "msg.def"
CODES = {name: int(code, 16) for name, code in
         re.findall(r"^MSG\((\w+), \w+, (0x[0-9A-Fa-f]+),", TABLE.read_text(), re.M)}
NAMES = {code: name for name, code in CODES.items()}
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def job_id(number):
    """The 13 characters of a 64-bit id."""
    text = ""
    for _ in range(13):
        number, digit = divmod(number, 32)
        text = ALPHABET[digit] + text
    return text


class Message:
    def __init__(self, peer, name, header, payload):
        self.peer, self.name, self.header, self.payload = peer, name, header, payload
        self.at = time.monotonic()

    def __getitem__(self, key):
        return self.header.get(key)

    def __repr__(self):
        return f"{self.name} {self.header} +{len(self.payload)} frames"

    def document(self):
        return msgpack.unpackb(b"".join(self.payload))


class FakeBroker:
    def __init__(self, path, heartbeat_ms=100, lease_ms=3000):
        self.endpoint = f"ipc://{path}"
        self.heartbeat_ms, self.lease_ms = heartbeat_ms, lease_ms
        self.epoch, self.attempt = 1, 0
        self.beats, self.seen, self.answer_beats, self.acknowledge = [], [], True, True
        self.quiet = True
        self.many = False  # it reads several messages in one
        self.context = zmq.Context()
        self.open()

    def open(self):
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(self.endpoint)
        self.peer = self.session = None

    def close(self):
        self.socket.close()
        self.context.term()

    def restart(self):
        """Forgets everything, as a broker that was killed and started again."""
        self.socket.close()
        self.epoch += 1
        self.open()

    def send(self, name, header, payload=(), peer=None):
        """To a peer that has gone it is lost, as on any network."""
        tag = b"PS" + bytes([1, CODES[name]])
        try:
            self.socket.send_multipart([peer or self.peer, tag, msgpack.packb(header), *payload])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def receive(self, timeout_s):
        """The next message that is no heartbeat; None when the time is over."""
        until = time.monotonic() + timeout_s
        while self.socket.poll(max(0, int((until - time.monotonic()) * 1000))):
            peer, tag, header, *payload = self.socket.recv_multipart()
            assert tag[:3] == b"PS\x01"
            message = Message(peer, NAMES[tag[3]], msgpack.unpackb(header), payload)
            if message.name == "GOODBYE" and not message["dead"] and self.quiet:
                self.send("QUIET", {"session": message["session"]}, peer=peer)
            if message.name != "HEARTBEAT":
                self.seen.append(message)
                return message
            self.beats.append(message)
            if message["session"] != self.session or message["epoch"] != self.epoch:
                self.send("REREGISTER", {"reason": "not known here"}, peer=peer)
            elif self.answer_beats:
                self.peer = peer
                self.send("HEARTBEAT_ACK", {"epoch": self.epoch})
        return None

    def expect(self, *names, timeout_s=20):
        """The next message, which must be one of these; progress is passed over unless named."""
        until = time.monotonic() + timeout_s
        while (message := self.receive(until - time.monotonic())):
            if message.name == "PROGRESS" and "PROGRESS" not in names:
                continue
            if message.name == "REGISTER" and "REGISTER" not in names:
                self.registered(message)
                continue
            assert message.name in names, f"expected {names}, got {message}"
            if self.acknowledge and message.name in ("STAGE_DONE", "STAGE_FAILED", "RETURN"):
                self.ack(message)
            return message
        raise AssertionError(f"no {' or '.join(names)} within {timeout_s} s")

    def nothing(self, seconds):
        """Nothing but heartbeats and progress comes for so long."""
        until = time.monotonic() + seconds
        while (message := self.receive(max(0, until - time.monotonic()))):
            assert message.name == "PROGRESS", f"unexpected: {message}"

    def ack(self, message, verdict="recorded"):
        self.send("STAGE_ACK", {"job": message["job"], "stage": message["stage"],
                                "attempt": message["attempt"], "verdict": verdict},
                  peer=message.peer)

    def registered(self, message):
        self.peer, self.session = message.peer, message["session"]
        self.send("REGISTERED", {"session": self.session, "epoch": self.epoch,
                                 "heartbeat_ms": self.heartbeat_ms, "lease_ms": self.lease_ms,
                                 "many": self.many})
        return message

    def register(self, timeout_s=20):
        return self.registered(self.expect("REGISTER", timeout_s=timeout_s))

    def lease(self, runs, body, number=None, first=0, inputs=(), alone=False, in_parts=False,
              kind="test", priority=4, **stage):
        """Leases a job whose span is these stages; a run may be a dict with more fields. The body is
        a document, or a list of the parts of one."""
        self.attempt += 1
        number = number or 1000 + self.attempt
        plan = []
        for run in runs:
            more = run if isinstance(run, dict) else {"run": run}
            plan.append({"name": more["run"].split(".")[1], "timeout_ms": 60000, "batch_max": 1,
                         "batch_delay_ms": 0, "checkpoint": False, **stage, **more})
        header = {"job": job_id(number), "kind": kind, "stage": first, "attempt": self.attempt,
                  "seed": 7, "priority": priority, "plan": plan}
        if alone:
            header["alone"] = True
        if in_parts:
            header["body_parts"] = len(body)
        self.send("LEASE", header, [*(body if in_parts else [msgpack.packb(body)]), *inputs])
        return header["job"], self.attempt
