import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { X509Certificate } from "node:crypto"
import { callerOf, type ShownCertificate } from "../../src/layers/api/Identity.ts"
import { certificates } from "../support/Certs.ts"

const clientAuth = "1.3.6.1.5.5.7.3.2"
const serverAuth = "1.3.6.1.5.5.7.3.1"
const all = await certificates()

/** As Node shows it after a handshake. */
const shown = (pem: string): ShownCertificate => new X509Certificate(pem).toLegacyObject()

const reason = (certificate: ShownCertificate | null | undefined, field: "CN" | "L" = "CN") => {
  const caller = callerOf(certificate, field)
  return Result.isFailure(caller) ? caller.failure.reason : `caller ${caller.success.name}`
}
const named = (subject: ShownCertificate["subject"] & object) => ({ subject, ext_key_usage: [clientAuth] })

describe("a caller's name", () => {
  it("is what the certificate has in CN, or in L where the operator says so, whatever its CN is", () => {
    assert.deepStrictEqual(
      callerOf(shown(all.alice.cert), "CN", "127.0.0.1:4711"),
      Result.succeed({ name: "alice", via: "certificate", from: "127.0.0.1:4711" } as never)
    )
    assert.strictEqual(reason(shown(all.aliceInL.cert), "L"), "caller alice")
    assert.strictEqual(reason(shown(all.aliceInL.cert)), "caller client")
    assert.strictEqual(reason(named({ L: "alice" }), "L"), "caller alice")
    assert.match(reason(shown(all.alice.cert), "L"), /no L/)
  })

  it("is not taken from anything ambiguous, missing or unsafe", () => {
    assert.match(reason(undefined), /no client certificate/)
    assert.match(reason(null), /no client certificate/)
    assert.match(reason({}), /no client certificate/)
    assert.match(reason(named({ CN: ["alice", "admin"] })), /more than one CN/)
    assert.match(reason(named({ CN: "alice", L: ["alice", "admin"] }), "L"), /more than one L/)
    for (const name of ["", "../admin", "alice/admin", "a b", "alice\0", "*", "alice\nadmin", "a".repeat(129), ".a"]) {
      assert.match(reason(named({ CN: name })), /cannot be the name of an owner/, JSON.stringify(name))
    }
  })

  it("is not taken from a certificate that is not a client's", () => {
    assert.match(reason(shown(all.server.cert)), /not one for a client/)
    assert.match(reason({ subject: { CN: "alice" } }), /not one for a client/)
    assert.match(reason({ subject: { CN: "alice" }, ext_key_usage: [serverAuth] }), /not one for a client/)
    assert.strictEqual(reason({ subject: { CN: "alice" }, ext_key_usage: [serverAuth, clientAuth] }), "caller alice")
  })

  it("of an unbelieved one is not repeated", () => {
    assert.notInclude(reason(named({ CN: "evil\nline" })), "evil")
  })
})
