import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { type AddressInfo, createServer as createTcpServer } from "node:net"
import { wait } from "../../src/functions/Wait.ts"
import { call, failure, refused } from "./Calls.ts"

interface Heard {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly length: string | undefined
  readonly body: string
}

/** A server on loopback that tells what it heard, as long as the scope is open. */
const listening = (answer: (request: IncomingMessage, response: ServerResponse) => void) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const heard: Array<Heard> = []
      const server = createServer(async (request, response) => {
        let body = ""
        for await (const chunk of request) body += String(chunk)
        heard.push({ method: request.method, url: request.url, length: request.headers["content-length"], body })
        answer(request, response)
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return { heard, server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
    }),
    ({ server }) =>
      Effect.promise(() =>
        new Promise<void>((resolve) => {
          server.close(() => resolve())
          server.closeAllConnections()
        })
      )
  )

describe("wait", { timeout: 60_000 }, () => {
  it.live("sends one empty POST and gives its answer's status, whatever that is", () =>
    Effect.gen(function*() {
      for (const status of [200, 204, 404, 500]) {
        const { heard, url } = yield* listening((_, response) => response.writeHead(status).end("x"))
        const called = yield* call(wait, { seconds: 0, url: `${url}/done?id=1#part`, private: true })
        assert.strictEqual(called.result, status)
        assert.deepStrictEqual(called.said, [
          "Waiting 0 seconds",
          `Sending an empty POST to ${url}/done?id=1#part`,
          `The answer's status is ${status}`
        ])
        assert.deepStrictEqual(heard, [{ method: "POST", url: "/done?id=1", length: "0", body: "" }])
      }
    }))

  it.live("does not follow a redirect", () =>
    Effect.gen(function*() {
      const other = yield* listening((_, response) => response.end())
      const { url } = yield* listening((_, response) => response.writeHead(307, { location: other.url }).end())
      assert.strictEqual((yield* call(wait, { seconds: 0, url, private: true })).result, 307)
      assert.deepStrictEqual(other.heard, [])
    }))

  it.live("has its status although the answer's body never ends", () =>
    Effect.gen(function*() {
      const { url } = yield* listening((_, response) => void response.writeHead(200).write("on and on"))
      assert.strictEqual((yield* call(wait, { seconds: 0, url, private: true })).result, 200)
    }))

  it.effect("waits before it sends", () =>
    Effect.gen(function*() {
      const { heard, url } = yield* listening((_, response) => response.end())
      const running = yield* Effect.forkChild(call(wait, { seconds: 3600, url, private: true }), {
        startImmediately: true
      })
      yield* TestClock.adjust("3599 seconds")
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
      assert.deepStrictEqual(heard, [])
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(running)).result, 200)
      assert.strictEqual(heard.length, 1)
    }))

  it.effect("gives up on a server that says nothing", () =>
    Effect.gen(function*() {
      const asked = Promise.withResolvers<void>()
      const { url } = yield* listening(() => asked.resolve())
      const running = yield* Effect.forkChild(failure(wait, { seconds: 0, url, private: true }), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 millis")
      yield* Effect.promise(() => asked.promise)
      yield* TestClock.adjust("30 seconds")
      assert.include(yield* Fiber.join(running), "nothing came within 30s")
    }))

  it.live("a connection that is refused, or cut, fails with its reason and a remedy", () =>
    Effect.gen(function*() {
      const gone = yield* Effect.scoped(Effect.map(listening(() => {}), ({ url }) => url))
      const text = yield* failure(wait, { seconds: 0, url: gone, private: true })
      assert.include(text, "the POST had no answer: connect ECONNREFUSED")
      assert.include(text, "sandbox class's network")
      const cut = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = createTcpServer((socket) => socket.once("data", () => socket.destroy()))
          await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
          return server
        }),
        (server) => Effect.promise(() => new Promise<void>((resolve) => void server.close(() => resolve())))
      )
      const { port } = cut.address() as AddressInfo
      const words = yield* failure(wait, { seconds: 0, url: `http://127.0.0.1:${port}`, private: true })
      assert.include(words, "socket hang up")
      const nameless = yield* failure(wait, { seconds: 0, url: "http://nowhere.invalid/" })
      assert.include(nameless, "nowhere.invalid")
    }))

  it.live("is stopped in the middle", () =>
    Effect.gen(function*() {
      const closed = Promise.withResolvers<void>()
      const asked = Promise.withResolvers<void>()
      const { url } = yield* listening((request) => {
        request.socket.on("close", () => closed.resolve())
        asked.resolve()
      })
      const running = yield* Effect.forkChild(call(wait, { seconds: 0, url, private: true }))
      yield* Effect.promise(() => asked.promise)
      yield* Fiber.interrupt(running)
      yield* Effect.promise(() => closed.promise)
    }))

  it("needs a network", () => assert.deepStrictEqual(wait.needs, { network: true }))

  for (
    const host of [
      "127.0.0.1",
      "127.1",
      "2130706433",
      "0x7f.1",
      "0x7f000001",
      "017700000001",
      "127.0.0.1.",
      "0.0.0.0",
      "0",
      "10.1.2.3",
      "172.16.0.1",
      "192.168.1.1",
      "100.64.0.1",
      "169.254.169.254",
      "224.0.0.1",
      "255.255.255.255",
      "[::1]",
      "[::]",
      "[::ffff:127.0.0.1]",
      "[::ffff:7f00:1]",
      "[64:ff9b::10.0.0.1]",
      "[fe80::1]",
      "[fd00::1]",
      "[fd00:ec2::254]",
      "[2002:7f00:1::]",
      "[ff02::1]",
      "localhost",
      "LOCALHOST",
      "localhost.",
      "a.localhost",
      "１２７.0.0.1"
    ]
  ) {
    it.effect(`refuses ${host}, unless its sender says that it is allowed`, () =>
      Effect.gen(function*() {
        for (const url of [`http://${host}/x`, `https://${host}:8443/`]) {
          const text = yield* refused(wait, { seconds: 1, url })
          assert.match(text, /^wait: \S+ is (no public address|the sandbox itself)/)
          assert.include(text, "say private if the sandbox class's network allows")
          yield* wait.check({ seconds: 1, url, private: true })
        }
      }))
  }

  for (
    const url of [
      "http://example.org",
      "https://example.org:8443/a?b=c",
      "http://8.8.8.8/",
      "http://[2606:4700::1111]/",
      "http://127.0.0.1.example.org/",
      "http://localhost.example.org/"
    ]
  ) {
    it.effect(`takes ${url}`, () => wait.check({ seconds: 86_400, url }))
  }

  for (
    const [name, args, words] of [
      ["a thousand million seconds", { seconds: 1e9, url: "http://a.org" }, "whole seconds from 0 to 86400"],
      ["negative seconds", { seconds: -1, url: "http://a.org" }, "whole seconds from 0 to 86400"],
      ["half a second", { seconds: 0.5, url: "http://a.org" }, "integer"],
      ["another scheme", { seconds: 1, url: "file:///etc/passwd" }, "begins with http:// or https://"],
      ["a path", { seconds: 1, url: "/x" }, "a URL, such as"],
      ["a password", { seconds: 1, url: "http://u:p@a.org" }, "without user and password"],
      ["a user", { seconds: 1, url: "http://u@a.org" }, "without user and password"],
      ["a long one", { seconds: 1, url: `http://a.org/${"x".repeat(5000)}` }, "at most 4096 characters"],
      ["a number of dots too many", { seconds: 1, url: "http://1.2.3.4.5/" }, "a URL, such as"],
      ["no URL", { seconds: 1 }, "url"],
      ["a field nobody knows", { seconds: 1, url: "http://a.org", method: "GET" }, "method"]
    ] as const
  ) {
    it.effect(`refuses ${name}, saying why`, () =>
      Effect.map(refused(wait, args), (text) => {
        assert.include(text, words)
        assert.notInclude(text, "u:p@")
      }))
  }
})
