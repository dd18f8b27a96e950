/** Strings for `execve`. */
import { Schema } from "effect"

/** An argument, name or value for `execve`, which ends strings at NUL. */
export const ExecString = Schema.String.check(
  Schema.makeFilter((text: string) => !text.includes("\u0000"), { expected: "text without NUL bytes" }),
  Schema.isMaxLength(131_072, { expected: "at most 131072 characters (Linux' limit for one argument)" })
)
