"""The asyncio client against a real broker: the same verbs, many at a time, and nothing left behind."""
import asyncio
import threading
import time

import msgpack
import penstock
import pytest
from real_broker import LONG_S, PROGRESS, STAGE_DONE, Broker, EchoWorker, Worker, echo

GENERATE = echo(name="text.generate").replace("kind: text.embed", "kind: text.generate")
TEXTS = {"texts": ["hello"]}


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("aio"), echo(name="text.embed"), GENERATE) as b:
        yield b


def drive(broker, use, **options):
    """Runs use(client) in a loop of its own."""
    async def main():
        async with penstock.AsyncClient(broker.clients, **options) as client:
            return await asyncio.wait_for(use(client), 3 * LONG_S)
    return asyncio.run(main())


async def until(true):
    """Waits until an awaited condition holds."""
    end = time.monotonic() + LONG_S
    while not await true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_verbs_are_awaited_and_calls_run_side_by_side(broker):
    async def use(client):
        jobs = await asyncio.gather(*(client.submit("text.embed", TEXTS, seed=i) for i in range(40)))
        assert [job.seed for job in jobs] == list(range(40))
        results = await asyncio.gather(*(client.wait(job, timeout=LONG_S) for job in jobs))
        assert all(result.done for result in results)
        assert len({result.job for result in results}) == 40
        assert (await client.result(jobs[0])).value == results[0].value
        assert (await client.show(jobs[0]))["state"] == "done"
        assert (await client.run("text.embed", TEXTS, timeout=LONG_S))["path"] == ["test.echo"]
        assert (await client.ping()).accepting and "jobs" in await client.status()
        assert len([row async for row in client.list(limit=7)]) == 7
        assert not client._core.mail and not client._core.farewells
    with EchoWorker(broker):
        drive(broker, use)


def test_many_jobs_are_submitted_and_their_results_gathered(broker):
    async def use(client):
        jobs = await client.submit_many(penstock.embed(f"text {i}") for i in range(300))
        assert len({job.job for job in jobs}) == 300
        seen = [result.job async for result in client.as_completed(jobs, timeout=60)]
        assert sorted(seen) == sorted(job.job for job in jobs)
        results = await client.gather(jobs, timeout=60)
        assert [r.job for r in results] == [job.job for job in jobs]
        assert all(r.done for r in results)
    with EchoWorker(broker, credit=32):
        drive(broker, use)


def test_a_cancelled_await_leaves_no_watch_and_no_request(broker):
    async def use(client):
        job = await client.submit("text.embed", TEXTS, delay=3600)

        async def watches():
            return (await client.status())["watches"]
        assert await watches() == 0
        waits = [asyncio.create_task(client.wait(job, timeout=None)) for _ in range(5)]

        async def follow():
            async for _ in client.events(job):
                pass
        waits.append(asyncio.create_task(follow()))

        async def all_there():
            return await watches() == 6
        await until(all_there)
        for wait in waits:
            wait.cancel()
        assert all(isinstance(e, asyncio.CancelledError)
                   for e in await asyncio.gather(*waits, return_exceptions=True))

        async def all_gone():
            return await watches() == 0
        await until(all_gone)
        assert not client._core.mail
        async for _ in client.events(job):
            break  # a stream that is dropped is stopped too
        await until(all_gone)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.submit("text.embed", TEXTS), 0)
        assert not client._core.mail
        assert await client.cancel(job) == "cancelled"
    drive(broker, use)


def test_a_stream_goes_on_after_a_cancelled_next(broker):
    async def use(client):
        job = await client.submit("text.embed", TEXTS, delay=3600)
        events = client.events(job)
        first = await events.__anext__()
        assert first.data["state"] == "delayed"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(events.__anext__(), 0.1)
        await client.cancel(job)
        assert [e.data["state"] async for e in events] == ["cancelled"]
    drive(broker, use)


def test_text_is_streamed_and_a_lost_attempt_is_told(broker):
    def write(worker, pieces, end):
        lease = worker.lease()[0]
        token = {"job": lease["job"], "stage": 0, "attempt": lease["attempt"], "type": "token"}
        for i, text in enumerate(pieces):
            worker.send(PROGRESS, dict(token, data={"text": text, "tokens": i + 1}))
        if end is None:
            worker.fail(lease, "transient", "it lost its thread")
        else:
            worker.send(STAGE_DONE, {"job": lease["job"], "stage": 0, "attempt": lease["attempt"]},
                        msgpack.packb({"text": end, "completion_tokens": 3}))

    async def use(client):
        with Worker(broker, name="writer") as w:
            stream = client.stream_text(penstock.generate("Once"), timeout=LONG_S)
            loop = asyncio.get_running_loop()
            first = loop.run_in_executor(None, write, w, ["upon", " an"], None)
            pieces = [await stream.__anext__(), await stream.__anext__()]
            await first
            await loop.run_in_executor(None, write, w, ["upon", " a"], "upon a time")
            pieces += [piece async for piece in stream]
        assert [p.text for p in pieces] == ["upon", " an", "upon", " a", " time"]
        assert [p.restarted for p in pieces] == [False, False, True, False, False]
        assert [p.last for p in pieces] == [False] * 4 + [True]
        assert pieces[-1].result.value["text"] == "upon a time"
    drive(broker, use)


def test_a_job_that_ends_otherwise_raises_how(broker):
    async def use(client):
        job = await client.submit("text.embed", TEXTS, delay=3600)
        await client.cancel(job, reason="not today")
        with pytest.raises(penstock.JobCancelled, match="not today") as cancelled:
            (await client.wait(job)).unwrap()
        assert cancelled.value.result.state == "cancelled"
        with pytest.raises(penstock.JobExpired):
            await client.run("text.embed", TEXTS, ttl=0.05, delay=3600, timeout=LONG_S)
        with pytest.raises(penstock.Refused) as refused:
            await client.submit("text.embed", {})
        assert refused.value.field == "texts" and refused.value.fix
        with pytest.raises(penstock.Timeout, match="delayed"):
            await client.wait(await client.submit("text.embed", TEXTS, delay=3600), timeout=0.2)
    drive(broker, use)


def test_no_broker_is_unreachable_in_time():
    async def main():
        async with penstock.AsyncClient("ipc:///tmp/penstock-nobody-here", timeout=0.2) as client:
            with pytest.raises(penstock.Unreachable, match="penstock up"):
                await client.ping()
        with pytest.raises(penstock.Error, match="closed"):
            await client.ping()
        with pytest.raises(penstock.Unreachable):
            async with penstock.AsyncClient("not an endpoint"):
                pass
    asyncio.run(main())


def test_calls_that_are_under_way_outlive_the_brokers_death(tmp_path):
    with Broker(tmp_path, echo(name="text.embed")) as b:
        async def use(client):
            jobs = await client.submit_many([penstock.embed("x")] * 20)
            states = []

            async def follow():
                async for event in client.events(jobs[0], timeout=60):
                    states.append(event.data.get("state"))
            tasks = [asyncio.create_task(client.wait(job, timeout=60)) for job in jobs]
            tasks += [asyncio.create_task(follow()),
                      asyncio.create_task(client.gather(jobs, timeout=60))]
            await asyncio.sleep(0.5)
            b.kill()
            more = asyncio.create_task(client.submit_many([penstock.embed("y")] * 20))
            await asyncio.sleep(0.5)
            b.start()
            with EchoWorker(b):
                assert all(result.done for result in await asyncio.gather(*tasks[:20]))
                assert all(result.done for result in await tasks[21])
                await tasks[20]
                assert states[0] == "ready" and states[-1] == "done"
                assert all(r.done for r in await client.gather(await more, timeout=60))
            assert not client._core.mail
        drive(b, use)


def test_a_full_queue_is_waited_for_when_the_caller_wants_that(tmp_path):
    with Broker(tmp_path, echo(name="text.embed", queue_max=4)) as b:
        async def use(client):
            with pytest.raises(penstock.SomeRefused) as some:
                await client.submit_many([penstock.embed("x")] * 10)
            assert len(some.value.refused) == 6
            assert all(why.code == "full" and why.retry_after_ms for why in some.value.refused.values())
            assert [one is None for one in some.value.accepted].count(True) == 6
            with pytest.raises(penstock.Refused):
                await client.submit("text.embed", TEXTS)
            patient = penstock.Retry(tries=100, wait_max=60)
            with EchoWorker(b):
                jobs = await client.submit_many([penstock.embed("y")] * 40, retry=patient)
                await client.submit("text.embed", TEXTS, retry=patient)
                assert all(r.done for r in await client.gather(jobs, timeout=60))
        drive(b, use)


def test_two_threads_have_a_client_each(broker):
    def work(found):
        with penstock.Client(broker.clients) as client:
            found.extend(client.gather(client.submit_many([penstock.embed("z")] * 50), timeout=60))
    with EchoWorker(broker, credit=32):
        lists = [[], []]
        threads = [threading.Thread(target=work, args=(found,)) for found in lists]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [len(found) for found in lists] == [50, 50]
    assert not {r.job for r in lists[0]} & {r.job for r in lists[1]}
