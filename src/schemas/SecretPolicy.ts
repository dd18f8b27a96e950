/** Which secrets of a cluster jobs may name. */
import { Schema } from "effect"
import { type Container, SecretName } from "./Container.ts"

/**
 * Of the jobs' namespace, by their names; `any`: every one that is there, also those of service accounts, which clusters before
 * 1.24 put into each namespace by themselves.
 */
export const SecretPolicy = Schema.Union([
  Schema.Literal("any"),
  Schema.Array(SecretName).check(Schema.isMaxLength(1000))
])
export type SecretPolicy = typeof SecretPolicy.Type

/**
 * Why a container may not have the secrets it names, and what to do; undefined if it may. Absent, the policy is none: a pod
 * is shown what it names, so whoever sends jobs could read all that lies beside them. The store's needs no permission, because
 * every job that asks for it has it whole.
 */
export const secretRefusal = (
  policy: SecretPolicy = [],
  storeSecret: string | undefined,
  { pullSecret, secrets }: Container
): { readonly reason: string; readonly remedy: string } | undefined => {
  if (policy === "any") return undefined
  const named = [
    ...Object.values(secrets).map(({ secret }) => secret),
    ...(pullSecret === undefined ? [] : [pullSecret])
  ]
  const refused = named.find((name) => !policy.includes(name) && name !== storeSecret)
  return refused === undefined ? undefined : {
    reason: `the class lets no job name the secret ${refused}`,
    remedy: policy.length === 0
      ? "Leave it out, or have it allowed (the class's cluster.secrets)."
      : `Use one of ${policy.join(", ")}, or have it allowed (the class's cluster.secrets).`
  }
}
