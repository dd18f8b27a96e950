/** All attacks, and the table of them in docs/attacks.md. */
import type { Capability } from "../../src/layers/sandbox/Sandbox.ts"
import type { Attack } from "./Attack.ts"
import * as Files from "./Files.ts"
import * as Kernel from "./Kernel.ts"
import * as Machines from "./Machines.ts"
import * as Memory from "./Memory.ts"
import * as Neighbours from "./Neighbours.ts"
import * as Processes from "./Processes.ts"

export const groups: Readonly<Record<string, ReadonlyArray<Attack>>> = {
  processes: Processes.attacks,
  memory: Memory.attacks,
  files: Files.attacks,
  kernel: Kernel.attacks,
  neighbours: Neighbours.attacks
}

/** The drivers of the table, and what they promise; the test of the document asks the drivers themselves. */
export const drivers: Readonly<Record<string, ReadonlyArray<Capability>>> = {
  oci: [
    "isolation",
    "memory-limit",
    "cpu-limit",
    "pids-limit",
    "disk-limit",
    "usage",
    "own-cpu",
    "memory-workspace",
    "loopback-only"
  ],
  process: ["memory-limit", "cpu-limit", "pids-limit", "usage", "own-cpu"]
}

const result = (attack: Attack, capabilities: ReadonlyArray<Capability>) =>
  attack.needs.every((need) => capabilities.includes(need)) ? attack.result ?? "held" : "not promised"

const cell = (text: string) => text.replaceAll("|", "\\|")

const row = (cells: ReadonlyArray<string>) => `| ${cells.map(cell).join(" | ")} |`

const table = (attacks: ReadonlyArray<Attack>) => [
  row(["attack", ...Object.keys(drivers), "by what"]),
  row(["---", ...Object.keys(drivers).map(() => "---"), "---"]),
  ...attacks.map((attack) =>
    row([attack.name, ...Object.values(drivers).map((promised) => result(attack, promised)), attack.heldBy])
  )
]

/** Machines are another kind of neighbour: what is asked of them is asked of their root. */
const machines = [
  "### Machines",
  "",
  "Of a QEMU machine, whose root is the enemy's; emulated here. In the guest's place, those of networks have a program behind the real tap. [test/attacks/Machines.ts](../test/attacks/Machines.ts) has the test of each.",
  "",
  row(["attack", "machine", "by what"]),
  row(["---", "---", "---"]),
  ...Machines.attacks.map(({ heldBy, name, result: found = "held" }) => row([name, found, heldBy])),
  ""
]

export const document = () =>
  [
    ...Object.entries(groups).flatMap(([name, attacks]) => [
      `### ${name[0]?.toUpperCase()}${name.slice(1)}`,
      "",
      ...table(attacks),
      ""
    ]),
    ...machines
  ].join("\n")
