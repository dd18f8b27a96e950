/** Where a server listens. */
import { Schema } from "effect"

/** A place to listen: "127.0.0.1:9464", "[::1]:9464", "0.0.0.0:9464". */
export const HttpListen = Schema.String.check(
  Schema.isPattern(/^(?:\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):\d{1,5}$/, { expected: "HOST:PORT, such as 127.0.0.1:9464" }),
  Schema.makeFilter((text) => Number(text.slice(text.lastIndexOf(":") + 1)) <= 65_535, {
    expected: "a port from 0 to 65535"
  })
)
