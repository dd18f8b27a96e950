/**
 * `wait`: waits, then sends an empty HTTP POST. POST, because name and help of the RFD say so ("WaitThenPostHTTP",
 * `url_to_post`, "sending an empty HTTP POST request"); only a comment in its proto file says GET.
 */
import { Duration, Effect, Result, Schema } from "effect"
import { InvalidArguments, make } from "../schemas/Function.ts"
import { notPublic, PostUrl } from "./PostUrl.ts"

const mostSeconds = 86_400

/** From the request to the head of the answer, with resolving the name and connecting. */
const answerLimit = Duration.seconds(30)

/** The arguments of `wait`. */
export const WaitArgs = Schema.Struct({
  seconds: Schema.Int.check(
    Schema.isBetween({ minimum: 0, maximum: mostSeconds }, {
      expected:
        `whole seconds from 0 to ${mostSeconds} (a day); later is a matter of when the job begins, not of waiting`
    })
  ).annotate({ title: "Seconds", description: "how long to wait; the job's wall limit must be longer" }),
  url: PostUrl.annotate({
    title: "URL",
    description: "where the request goes: http or https, without user and password"
  }),
  private: Schema.optionalKey(Schema.Boolean.annotate({
    title: "Private",
    description: "the URL's address is not public, and the sandbox class's network allows it"
  }))
})
export type WaitArgs = typeof WaitArgs.Type

/** The request had no answer. */
export class PostFailed extends Schema.TaggedError<PostFailed>()("PostFailed", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `the POST had no answer: ${this.reason}. ${this.remedy}`
  }
}

const remedy = "Check the URL, that somebody listens there, and that the sandbox class's network allows it."

/** Loaded by who posts: every other function host would wait for it too, as long as for all the rest. */
const requester = (url: string) =>
  Effect.promise(() => url.startsWith("https:") ? import("node:https") : import("node:http"))

/**
 * The answer's status. Its body is not read, and a redirect is an answer like others: following it would let whoever
 * answers choose where the next request goes.
 */
const post = Effect.fnUntraced(function*(url: string): Effect.fn.Return<number, PostFailed> {
  const { request: begin } = yield* requester(url)
  return yield* Effect.callback<number, PostFailed>((resume) => {
    const request = begin(new URL(url), {
      method: "POST",
      // One request: no connection is kept.
      agent: false,
      headers: { "content-length": "0", "user-agent": "stoker-wait" }
    })
    const failed = (reason: string) => resume(Effect.fail(new PostFailed({ reason, remedy })))
    request.on("error", (error) => failed(error.message === "" ? String(error) : error.message))
    request.on("close", () => failed("the connection was closed"))
    request.on("response", (response) => {
      resume(Effect.succeed(response.statusCode ?? 0))
      response.destroy()
    })
    request.end()
    return Effect.sync(() => void request.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: answerLimit,
      orElse: () =>
        Effect.fail(new PostFailed({ reason: `nothing came within ${Duration.format(answerLimit)}`, remedy }))
    })
  )
})

/**
 * Whatever is asked for, the sandbox's own network refuses what its class does not allow: names that resolve to private
 * addresses too, since nftables looks at packets and not at names (`layers/network/Policy.ts`). The check is there so
 * that an address which cannot be reached is refused at once and not after a day. A class may allow some that are not
 * public; no door knows the class's network, so the sender says it.
 */
export const wait = make({
  name: "wait",
  title: "Wait Then Send",
  description: "waits for a set number of seconds before sending an empty HTTP POST request to a URL.",
  args: WaitArgs,
  positional: { seconds: "seconds", url: "url" },
  needs: { network: true },
  check: (args) =>
    args.private === true ? Effect.void : Effect.fromResult(Result.mapError(
      notPublic(args.url),
      (reason) =>
        new InvalidArguments({
          function: "wait",
          reason,
          remedy: "Give a public address, or say private if the sandbox class's network allows this one."
        })
    )),
  handler: Effect.fnUntraced(function*({ seconds, url }, { say }) {
    yield* say(`Waiting ${seconds} second${seconds === 1 ? "" : "s"}`)
    yield* Effect.sleep(Duration.seconds(seconds))
    const { href } = new URL(url)
    yield* say(`Sending an empty POST to ${href}`)
    const status = yield* post(href)
    yield* say(`The answer's status is ${status}`)
    return status
  })
})
