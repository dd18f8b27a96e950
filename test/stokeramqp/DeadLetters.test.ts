import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, Redacted } from "effect"
import { join } from "node:path"
import { DeadLetters } from "../../src/layers/deadletters/DeadLetters.ts"
import * as DeadLettersAmqp from "../../src/layers/deadletters/DeadLettersAmqp.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { standardTerms } from "../../src/schemas/Terms.ts"
import * as Places from "../journal/places.ts"
import * as Sample from "../journal/samples.ts"
import { Broker } from "../support/Broker.ts"
import { projectEnv, run } from "../support/Run.ts"
import { acquireBroker, acquireRaw, acquireUser, ask, queueIs, say1, served, silent, startIntake } from "./Place.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

const lettersOf = ({ url }: Broker) =>
  Effect.map(
    Layer.build(DeadLettersAmqp.layer({ url: Redacted.make(url), name: "test" }).pipe(Layer.provide(silent))),
    (context) => Context.get(context, DeadLetters)
  )

/** Five messages that are no jobs, kept by a worker's door. */
const withFive = Effect.gen(function*() {
  const broker = yield* acquireBroker
  const door = yield* startIntake(broker)
  yield* served(broker)
  const raw = yield* acquireRaw(broker)
  for (let n = 0; n < 5; n++) {
    raw.send({ id: `bad${n}`, function: "NO", args: n }, { messageId: `m${n}`, headers: { mine: `h${n}` } })
    // One after the other: they are kept side by side.
    yield* queueIs(broker, "stoker.dead", n + 1)
  }
  return { broker, door, raw, letters: yield* lettersOf(broker) }
})

describe("dead letters", { timeout: 60_000 }, () => {
  it.live("looking loses none and leaves their order, however often", () =>
    Effect.gen(function*() {
      const { broker, letters } = yield* withFive
      const first = yield* letters.list(100)
      assert.strictEqual(first.total, 5)
      assert.deepStrictEqual(first.letters.map(({ messageId }) => messageId), ["m0", "m1", "m2", "m3", "m4"])
      assert.deepInclude(first.letters[0], { queue: "stoker.jobs", isCut: false })
      assert.match(first.letters[0]?.reason ?? "", /a field is wrong/)
      for (let n = 0; n < 30; n++) assert.deepStrictEqual(yield* letters.list(100), first)
      assert.deepStrictEqual((yield* letters.list(2)).letters, first.letters.slice(0, 2))
      assert.deepStrictEqual(yield* letters.list(100), first)
      const shown = yield* letters.show(first.letters[3]?.id ?? "")
      assert.strictEqual(Buffer.from(shown.body).toString(), JSON.stringify({ id: "bad3", function: "NO", args: 3 }))
      assert.strictEqual(shown.headers["mine"], "h3")
      assert.strictEqual((yield* Effect.flip(letters.show("0123456789abcdef")))._tag, "LetterNotFound")
      yield* queueIs(broker, "stoker.dead", 5)
    }).pipe(Effect.scoped))

  it.live("dropped are the named ones and no others; with a wrong name, none", () =>
    Effect.gen(function*() {
      const { broker, letters } = yield* withFive
      const { letters: all } = yield* letters.list(100)
      const ids = all.map(({ id }) => id)
      const [one = "", two = "", three = ""] = ids
      assert.strictEqual((yield* Effect.flip(letters.drop([one, "nonsense"])))._tag, "LetterNotFound")
      yield* queueIs(broker, "stoker.dead", 5)
      assert.deepStrictEqual((yield* letters.drop([three, one])).map(({ id }) => id), [one, three])
      yield* queueIs(broker, "stoker.dead", 3)
      assert.deepStrictEqual((yield* letters.list(100)).letters.map(({ id }) => id), [two, ...ids.slice(3)])
      assert.strictEqual((yield* letters.drop("all")).length, 3)
      assert.deepStrictEqual(yield* letters.list(100), { total: 0, letters: [] })
    }).pipe(Effect.scoped))

  it.live("a letter sent again is a new message: same content, owner and headers, tries counted from 1", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      raw.send(say1("j1"), {
        userId: "guest",
        replyTo: "somewhere",
        correlationId: "c",
        headers: {
          "x-stoker-attempt": 3,
          "x-stoker-ttl": 60_000,
          "x-stoker-sent-at": Date.now(),
          traceparent: "00-a-b-01"
        }
      })
      yield* Effect.flatMap(Queue.take(arrived), (delivery) => delivery.reject("the id is taken"))
      const letters = yield* lettersOf(broker)
      const { letters: [letter] } = yield* letters.list(1)
      assert.deepInclude(letter, { reason: "the id is taken", user: "guest" })
      yield* letters.retry([letter?.id ?? ""])
      const again = yield* Queue.take(arrived)
      assert.strictEqual(again.attempt, 1)
      assert.deepInclude(again.job, { id: "j1", owner: "guest", traceparent: "00-a-b-01" } as never)
      assert.deepStrictEqual(again.reply, { dialect: "stoker", replyTo: "somewhere", correlationId: "c" })
      yield* again.ack
      yield* queueIs(broker, "stoker.dead", 0)
      yield* queueIs(broker, "stoker.jobs", 0)
    }).pipe(Effect.scoped))

  it.live("a letter is its owner's when it is sent again, and a forged one nobody's but its forger's", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const alice = yield* acquireRaw(yield* acquireUser(broker, "alice-of-letters"))
      const claim = { "x-stoker-owner": "bob" }
      alice.send(say1("hers"), { userId: "alice-of-letters", headers: claim })
      yield* Effect.flatMap(Queue.take(arrived), (delivery) => delivery.reject("a test"))
      yield* queueIs(broker, "stoker.dead", 1)
      const origin = { ...claim, "x-stoker-user-id": "bob", "x-stoker-queue": "stoker.jobs" }
      alice.send(say1("forged"), { userId: "alice-of-letters", headers: origin }, "stoker.dead")
      alice.send(say1("unsigned"), { headers: origin }, "stoker.dead")
      yield* queueIs(broker, "stoker.dead", 3)
      const letters = yield* lettersOf(broker)
      assert.lengthOf(yield* letters.retry("all"), 3)
      const owners = new Map<string, string>()
      while (owners.size < 3) {
        const { ack, job } = yield* Queue.take(arrived)
        owners.set(job.id, job.owner)
        yield* ack
      }
      assert.deepStrictEqual(Object.fromEntries(owners), {
        hers: "alice-of-letters",
        forged: "alice-of-letters",
        unsigned: "stoker"
      })
    }).pipe(Effect.scoped))

  it.live("a letter whose queue is gone stays where it is", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const raw = yield* acquireRaw(broker)
      yield* ask(() =>
        raw.channel.assertQueue("stoker.dead", { durable: true, arguments: { "x-queue-type": "quorum" } })
      )
      raw.send(
        "x",
        { headers: { "x-stoker-queue": "gone", "x-stoker-exchange": "", "x-stoker-routing-key": "gone" } },
        "stoker.dead"
      )
      raw.send(
        "y",
        { headers: { "x-stoker-queue": "q", "x-stoker-exchange": "none", "x-stoker-routing-key": "k" } },
        "stoker.dead"
      )
      yield* queueIs(broker, "stoker.dead", 2)
      const letters = yield* lettersOf(broker)
      const { letters: [first, second] } = yield* letters.list(2)
      const unroutable = yield* Effect.flip(letters.retry([first?.id ?? ""]))
      assert.match(unroutable.message, /no queue takes it.*Start a worker/)
      const refused = yield* Effect.flip(letters.retry([second?.id ?? ""]))
      assert.strictEqual(refused._tag, "DeadLetterError")
      yield* queueIs(broker, "stoker.dead", 2)
    }).pipe(Effect.scoped))

  it.live("without a queue there are none; a broker that is away, or one that refuses us, is said at once", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      assert.deepStrictEqual(yield* Effect.flatMap(lettersOf(broker), (letters) => letters.list(10)), {
        total: 0,
        letters: []
      })
      const nowhere = yield* lettersOf(Object.assign(Object.create(broker) as Broker, { url: "amqp://127.0.0.1:1/" }))
      assert.match((yield* Effect.flip(nowhere.list(10))).message, /Is RabbitMQ running at 127\.0\.0\.1:1/)
      assert.lengthOf(
        (yield* ask(() => broker.connections())).filter(({ name }) => name.endsWith("/dead")),
        0
      )
    }).pipe(Effect.scoped))

  it.live("stoker dead list, show, retry and drop, for people and for programs", () =>
    Effect.gen(function*() {
      const { broker, letters } = yield* withFive
      const dead = (...args: ReadonlyArray<string>) =>
        ask(() =>
          run("node", [join(import.meta.dirname, "deadCommand.ts"), ...args], {
            env: { ...projectEnv, AMQP_URL: broker.url, STOKER_STATE: "/nonexistent/stoker-test" }
          })
        )
      const listed = yield* dead("list", "--json")
      assert.strictEqual(listed.code, 0, listed.stderr)
      const parsed = JSON.parse(listed.stdout) as { readonly letters: ReadonlyArray<{ readonly id: string }> }
      assert.deepStrictEqual(parsed, JSON.parse(JSON.stringify(yield* letters.list(100))))
      const id = parsed.letters[1]?.id ?? ""
      assert.match((yield* dead("list")).stdout, new RegExp(`LETTER +TIME +QUEUE[^]*${id} .*stoker\\.jobs`))
      const shown = JSON.parse((yield* dead("show", id, "--json")).stdout) as Record<string, unknown>
      assert.strictEqual(shown["text"], JSON.stringify({ id: "bad1", function: "NO", args: 1 }))
      assert.match((yield* dead("show", id)).stdout, /reason +a field is wrong[^]*\{"id":"bad1"/)
      assert.deepInclude(yield* dead("drop"), { code: 1, stdout: "" })
      assert.match((yield* dead("drop", id)).stderr, /1 letter thrown away/)
      yield* queueIs(broker, "stoker.dead", 4)
      // Still no jobs: sent again, they come back.
      assert.match((yield* dead("retry", "--all")).stderr, /4 letters sent again/)
      yield* queueIs(broker, "stoker.dead", 4)
      const missing = yield* dead("show", id)
      assert.strictEqual(missing.code, 1)
      assert.match(missing.stderr, /there is no dead letter/)
    }).pipe(Effect.scoped))

  it.live("stoker dead with a broker and a state directory lists both, each letter with its place", () =>
    Effect.gen(function*() {
      const { broker } = yield* withFive
      const state = yield* Places.directory
      yield* Journal.use((journal) =>
        journal.bury(
          { request: Sample.request("mine"), terms: standardTerms, tries: 3, receivedAtMs: 0 },
          { reason: "gave up", remedy: "none" }
        )
      ).pipe(Effect.provide(JournalSqlite.layer({ filename: join(state, "journal.sqlite") })))
      const dead = (...args: ReadonlyArray<string>) =>
        ask(() =>
          run("node", [join(import.meta.dirname, "deadCommand.ts"), ...args, "--state", state], {
            env: { ...projectEnv, AMQP_URL: broker.url }
          })
        )
      const { stdout } = yield* dead("list")
      assert.strictEqual(stdout.match(/ stoker\.jobs /g)?.length, 5)
      assert.match(stdout, /embedded\/local\/mine .* embedded .* gave up/)
      assert.match((yield* dead("retry", "mine")).stderr, /1 letter sent again/)
      assert.strictEqual(JSON.parse((yield* dead("list", "--json")).stdout).total, 5)
      assert.match((yield* dead("drop", "--all")).stderr, /5 letters thrown away/)
      const nowhere = yield* ask(() =>
        run("node", [join(import.meta.dirname, "deadCommand.ts"), "list", "--state", join(state, "nowhere")], {
          env: { ...projectEnv, AMQP_URL: broker.url }
        })
      )
      assert.match(nowhere.stderr, /no job has run yet with the state directory/)
      assert.strictEqual(nowhere.code, 1)
    }).pipe(Effect.scoped))
})
