/** Says the identity of the host's root, as the oci driver of a worker would now. */
import { Effect } from "effect"
import * as HostRoot from "../../src/layers/sandbox/HostRoot.ts"

process.stdout.write(await Effect.runPromise(Effect.flatten(HostRoot.make)))
