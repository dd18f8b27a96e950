/**
 * The JSON of a CodeBench agent's answer, read as it comes: `{message, error, stdout, stderr, exec_duration, mem_usage}`.
 * Output is passed on piece by piece and never held, so that it does not matter how much of it there is. All else is small
 * or refused. Fields that are not known are passed over.
 */
import { Result, Schema } from "effect"
import type { StreamName } from "../../../schemas/Outcome.ts"

/** Bytes of a field's name, and of a field that is not output. */
const MOST_NAME = 64
const MOST_TEXT = 64 * 1024
/** Of a number, and of `true`, `false` and `null`. */
const MOST_WORD = 32

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_LIST = 0x5b
const BACKSLASH = 0x5c
const CLOSE_LIST = 0x5d
const OPEN = 0x7b
const CLOSE = 0x7d

const REPLACEMENT = 0xfffd

const isSpace = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const isWord = (byte: number) => /[A-Za-z0-9.+-]/.test(String.fromCharCode(byte))

const escapes: ReadonlyMap<string, string> = new Map([
  ["\"", "\""],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"]
])

/** What is not output. The times and sizes are the agent's own words. */
export const AgentWords = Schema.Struct({
  message: Schema.String,
  error: Schema.optionalKey(Schema.NullOr(Schema.String)),
  /** Microseconds. */
  exec_duration: Schema.optionalKey(Schema.NullOr(Schema.Natural)),
  /** KiB. */
  mem_usage: Schema.optionalKey(Schema.NullOr(Schema.Natural))
})
export type AgentWords = typeof AgentWords.Type

const decodeWords = Schema.decodeUnknownResult(AgentWords)

export interface Piece {
  readonly stream: StreamName
  /** Not reused. */
  readonly bytes: Uint8Array
}

/** What some bytes of the answer brought, in order. */
export interface Scanned {
  readonly pieces: ReadonlyArray<Piece>
  /** The object has been closed: the rest does not matter. */
  readonly isComplete: boolean
  /** Why it is no such answer. Final. */
  readonly wrong: string | undefined
}

export interface Scanner {
  readonly push: (chunk: Uint8Array) => Scanned
  /** The message, as soon as it is known. It comes before all output. */
  readonly message: () => string | undefined
  /** All that is known once it is complete, or what is wrong with it. */
  readonly words: () => Result.Result<AgentWords, string>
}

type Target = "name" | "text" | "stdout" | "stderr" | "nothing"
type Mode = "open" | "first" | "name" | "colon" | "value" | "string" | "word" | "nested" | "next" | "closed"

const targets: ReadonlyMap<string, Target> = new Map([
  ["message", "text"],
  ["error", "text"],
  ["stdout", "stdout"],
  ["stderr", "stderr"]
])
const known = new Set(["message", "error", "stdout", "stderr", "exec_duration", "mem_usage"])

export const makeScanner = (): Scanner => {
  let mode: Mode = "open"
  let target: Target = "nothing"
  let field = ""
  let wrong: string | undefined
  /** Of the string or word under way. */
  let gathered: Array<Uint8Array> = []
  let gatheredBytes = 0
  let word = ""
  /** After a backslash: what has come of the escape. */
  let escape: string | undefined
  let high: number | undefined
  let depth = 0
  let nestedString: "no" | "in" | "escaped" = "no"
  const found = new Map<string, string | number | boolean | null>()
  const seen = new Set<string>()

  const fail = (what: string) => {
    wrong ??= what
  }

  /** A field has its value. */
  const settle = (value: string | number | boolean | null) => {
    if (known.has(field) && field !== "stdout" && field !== "stderr") found.set(field, value)
    mode = "next"
  }

  const named = (name: string) => {
    field = name
    mode = "colon"
    if (!known.has(name)) return
    if (seen.has(name)) fail(`${name} is there twice`)
    seen.add(name)
  }
  const endString = () => {
    const text = Buffer.concat(gathered).toString("utf8")
    gathered = []
    gatheredBytes = 0
    if (target === "name") return named(text)
    if (target === "text") return settle(text)
    mode = "next"
  }

  const endWord = () => {
    if (word === "null" || word === "true" || word === "false") settle(word === "null" ? null : word === "true")
    else if (/^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$/.test(word)) settle(Number(word))
    else fail("a value that is none")
  }

  const beginString = (into: Target) => {
    target = into
    mode = "string"
  }

  const beginValue = (byte: number) => {
    const into = targets.get(field) ?? (known.has(field) ? "text" : "nothing")
    if ((into === "stdout" || into === "stderr") && !found.has("message")) fail("output comes before the message")
    else if (byte === QUOTE) beginString(into)
    else if (byte === OPEN || byte === OPEN_LIST) {
      if (known.has(field)) fail(`${field} is neither text nor a number`)
      mode = "nested"
      depth = 1
    } else if (isWord(byte)) {
      mode = "word"
      word = String.fromCharCode(byte)
    } else fail("a value is expected")
  }

  const inNested = (byte: number) => {
    if (nestedString === "escaped") nestedString = "in"
    else if (nestedString === "in") nestedString = byte === QUOTE ? "no" : byte === BACKSLASH ? "escaped" : "in"
    else if (byte === QUOTE) nestedString = "in"
    else if (byte === OPEN || byte === OPEN_LIST) depth += 1
    else if (byte === CLOSE || byte === CLOSE_LIST) depth -= 1
    if (depth === 0) mode = "next"
  }

  /** One byte outside of strings. */
  const step = (byte: number) => {
    if (mode === "nested") return inNested(byte)
    if (mode === "word") {
      if (isWord(byte) && word.length < MOST_WORD) {
        word += String.fromCharCode(byte)
        return
      }
      endWord()
      if (wrong !== undefined) return
    }
    if (isSpace(byte)) return
    if (mode === "open" && byte === OPEN) mode = "first"
    else if ((mode === "first" || mode === "next") && byte === CLOSE) mode = "closed"
    else if ((mode === "first" || mode === "name") && byte === QUOTE) beginString("name")
    else if (mode === "next" && byte === COMMA) mode = "name"
    else if (mode === "colon" && byte === COLON) mode = "value"
    else if (mode === "value") beginValue(byte)
    else fail("it is no JSON object")
  }

  const push = (chunk: Uint8Array): Scanned => {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    // What is decoded is never longer than what was sent, but for what was pending of an escape.
    const out = Buffer.allocUnsafe(bytes.length + 16)
    const pieces: Array<Piece> = []
    let from = 0
    let to = 0

    const flush = () => {
      const part = out.subarray(from, to)
      from = to
      if (part.length === 0 || target === "nothing") return
      if (target === "stdout" || target === "stderr") return void pieces.push({ stream: target, bytes: part })
      gatheredBytes += part.length
      if (gatheredBytes > (target === "name" ? MOST_NAME : MOST_TEXT)) {
        return fail(target === "name" ? "a field with an endless name" : `${field} is endless`)
      }
      gathered.push(Uint8Array.from(part))
    }
    const put = (code: number) => {
      to += out.write(String.fromCodePoint(code), to)
    }
    /** Half of a pair that did not become one. */
    const settleHigh = () => {
      if (high !== undefined) put(REPLACEMENT)
      high = undefined
    }
    const unicode = (code: number) => {
      const isLow = code >= 0xdc00 && code <= 0xdfff
      if (isLow && high !== undefined) {
        put(0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00))
        high = undefined
        return
      }
      settleHigh()
      if (code >= 0xd800 && code <= 0xdbff) high = code
      else put(isLow ? REPLACEMENT : code)
    }
    const inEscape = (byte: number) => {
      const letter = String.fromCharCode(byte)
      if (escape === "" && letter !== "u") {
        settleHigh()
        const plain = escapes.get(letter)
        if (plain === undefined) return fail("an unknown escape")
        put(plain.charCodeAt(0))
        escape = undefined
        return
      }
      escape += letter
      if (escape !== "u" && !/^u[0-9A-Fa-f]{1,4}$/.test(escape ?? "")) return fail("an unknown escape")
      if (escape?.length !== 5) return
      unicode(Number.parseInt(escape.slice(1), 16))
      escape = undefined
    }

    let quote = -1
    let slash = -1
    for (let at = 0; at < bytes.length;) {
      if (wrong !== undefined || mode === "closed") break
      const byte = bytes[at] ?? 0
      if (mode !== "string") {
        step(byte)
        at += 1
        continue
      }
      if (escape !== undefined) {
        inEscape(byte)
        at += 1
        continue
      }
      if (byte === BACKSLASH) {
        escape = ""
        at += 1
        continue
      }
      settleHigh()
      if (byte === QUOTE) {
        flush()
        if (wrong === undefined) endString()
        at += 1
        continue
      }
      // Each is looked for once between two that are found.
      if (quote < at) quote = bytes.indexOf(QUOTE, at)
      if (quote < 0) quote = bytes.length
      if (slash < at) slash = bytes.indexOf(BACKSLASH, at)
      if (slash < 0) slash = bytes.length
      const end = Math.min(quote, slash)
      to += bytes.copy(out, to, at, end)
      at = end
    }
    if (wrong === undefined) flush()
    return { pieces, isComplete: mode === "closed", wrong }
  }

  return {
    push,
    message: () => {
      const message = found.get("message")
      return typeof message === "string" ? message : undefined
    },
    words: () =>
      mode === "closed" && wrong === undefined
        ? Result.mapError(decodeWords(Object.fromEntries(found)), (error) => error.message)
        : Result.fail(wrong ?? "it ends in the middle")
  }
}
