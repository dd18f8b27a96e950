/** The file of bearer tokens: of each only its hash, so that who reads the file cannot use them. */
import { Schema } from "effect"
import { Owner } from "./Ids.ts"

const Sha256 = Schema.String.check(
  Schema.isPattern(/^[0-9a-f]{64}$/, { expected: "the SHA-256 of a token, 64 hexadecimal digits in lower case" })
)

/** One token. Several may have the same name: a new one beside the old, until all have it. */
export const Token = Schema.Struct({
  /** Whose jobs are started with it. */
  name: Owner,
  sha256: Sha256,
  /** ISO 8601; absent: until it is taken out of the file. */
  expiresAt: Schema.optionalKey(Schema.DateTimeUtcFromString)
})
export type Token = typeof Token.Type

/** `{"tokens": [{"name": "ci", "sha256": "…", "expiresAt": "2027-01-01T00:00:00Z"}]}` */
export const TokensFile = Schema.Struct({ tokens: Schema.Array(Token) })
export type TokensFile = typeof TokensFile.Type
