/** Which server, and who we are there: the flags of everything below `stoker jobs`. */
import type { Option } from "effect"
import { Flag } from "effect/cli"

const file = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar("FILE"), Flag.optional)

/** By the names of the flags. */
export const serverFlags = {
  context: Flag.String("context").pipe(
    Flag.withDescription("Server by its name (default: STOKER_CONTEXT, else the one of `stoker context use`)"),
    Flag.withMetavar("NAME"),
    Flag.optional
  ),
  server: Flag.String("server").pipe(
    Flag.withDescription(
      "grpc://HOST:PORT or https://HOST:PORT (default: STOKER_SERVER, else the context's, whose files are for it alone)"
    ),
    Flag.withMetavar("URL"),
    Flag.optional
  ),
  ca: file("ca", "CA that signed the server's certificate (default: STOKER_CA, else the context's)"),
  cert: file("cert", "Your certificate (default: STOKER_CERT, else the context's)"),
  key: file("key", "Its key (default: STOKER_KEY, else the context's)"),
  tokenFile: file("token-file", "Token, for https (default: STOKER_TOKEN_FILE, else the context's)")
}

/** As they were given. */
export type ServerChoice = { readonly [K in keyof typeof serverFlags]: Option.Option<string> }

/** All of them take a value. */
export const serverFlagNames: ReadonlyArray<string> = ["context", "server", "ca", "cert", "key", "token-file"]
