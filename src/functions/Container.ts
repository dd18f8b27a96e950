/** `container`: runs what an image holds. */
import { Effect, Schema } from "effect"
import { type Buckets, Container, DnsLabel, entryPoint } from "../schemas/Container.ts"
import { make } from "../schemas/Function.ts"
import { ArtefactPaths, baseEnv } from "../schemas/Program.ts"
import { field, optional } from "./Inputs.ts"

const { args, buckets, command, env, image, nodeSelector, pullSecret, secrets, store, ttlSeconds } = Container.fields

/** The arguments of `container`. */
export const ContainerArgs = Schema.Struct({
  image: field(image, "Image", "as container tools name it: debian:12, registry.example/tool@sha256:…"),
  name: optional(DnsLabel, "Name", "what logs and objects of the cluster call it (default: container)"),
  command: field(command, "Command", "instead of the image's entry point"),
  args: field(args, "Arguments", "instead of the image's"),
  env: optional(env, "Environment", "variables, on top of the image's"),
  secrets: optional(secrets, "Secrets", "variables whose values are in secrets of the cluster: {NAME: {secret, key}}"),
  buckets: field(buckets, "Buckets", "where its files come from and go to: {input, output, prefix}"),
  store: field(
    store,
    "Store",
    "its program reaches the object store by itself, with what the cluster's class has for that"
  ),
  pullSecret: field(pullSecret, "Pull secret", "a secret of the cluster with the registry's credentials"),
  nodeSelector: field(nodeSelector, "Node selector", "labels its node must have"),
  ttlSeconds: field(
    ttlSeconds,
    "Time to live",
    "seconds that the ended run stays (default: 30, an hour after a failure)"
  ),
  artefacts: optional(ArtefactPaths, "Artefacts", "files to bring back, where its sandbox is the worker's own")
})
export type ContainerArgs = typeof ContainerArgs.Type

/** What a program with buckets is told of them, as the MSTC worker's jobs were. */
const bucketVariables = (buckets: Buckets | undefined): Readonly<Record<string, string>> =>
  buckets === undefined ? {} : {
    INPUT_BUCKET: buckets.input,
    OUTPUT_BUCKET: buckets.output ?? buckets.input,
    ...(buckets.prefix === undefined ? {} : { FILE_PREFIX: buckets.prefix })
  }

/** Runs one container. */
export const container = make({
  name: "container",
  description: "runs a container image: in the cluster of a kubernetes class, or as the root of an oci sandbox.",
  args: ContainerArgs,
  positional: { image: "image" },
  program: ({ artefacts = [], env = {}, name = "container", secrets = {}, ...rest }, { run: limits }) => {
    const variables = { ...bucketVariables(rest.buckets), ...env }
    const argv = [...(rest.command ?? [entryPoint]), ...(rest.args ?? [])] as const
    return Effect.succeed({
      files: [],
      phases: [{
        name: "run" as const,
        argv: [argv[0] ?? entryPoint, ...argv.slice(1)] as const,
        env: { ...baseEnv, ...variables },
        stdin: new Uint8Array(),
        limits
      }],
      artefacts,
      container: { ...rest, name, env: variables, secrets }
    })
  }
})
