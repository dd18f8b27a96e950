/** `stoker image` */
import { Effect } from "effect"
import { Argument, CliError, Command, Flag } from "effect/cli"
import { type Language, Language as LanguageSchema } from "../../layers/microvm/MachineImage.ts"
import * as Flags from "../Flags.ts"

const common = { state: Flags.state, json: Flags.json }

const acts = Effect.promise(() => import("../RunImage.ts"))

const known: ReadonlyArray<string> = LanguageSchema.literals

const isLanguage = (text: string): text is Language => known.includes(text)

const languages = Flag.String("languages").pipe(
  Flag.withDescription("Compilers and interpreters of a debian root, with commas between (default: all of them)"),
  Flag.withMetavar("c,cpp,python,go"),
  Flag.mapEffect((value) => {
    const names = [...new Set(value.split(",").map((name) => name.trim()).filter((name) => name !== ""))]
    return names.every(isLanguage)
      ? Effect.succeed(names)
      : Effect.fail(
        new CliError.InvalidValue({ option: "languages", value, expected: `some of ${known.join(",")}`, kind: "flag" })
      )
  }),
  Flag.optional
)

const named = Argument.String("name").pipe(
  Argument.withDescription("Its name, or its identity as `stoker image list` prints it")
)

const build = Command.make(
  "build",
  {
    ...common,
    name: Argument.String("name").pipe(
      Argument.withDescription("What classes call it (default: default)"),
      Argument.withDefault("default")
    ),
    base: Flag.Literals("base", ["minimal", "debian"]).pipe(
      Flag.withDescription(
        "minimal: busybox, for static programs; debian: Debian with compilers, made as root (default)"
      ),
      Flag.optional
    ),
    languages,
    root: Flag.String("root").pipe(
      Flag.withDescription(
        "A file with an ext4 file system to be its root, instead of --base: a copy is taken. Machines start from it with " +
          "Stoker's guest; with an `agent`, by its own /sbin/init"
      ),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    kernel: Flag.String("kernel").pipe(
      Flag.withDescription(
        "Its kernel: an ELF vmlinux or a bzImage with all drivers in it, a Debian kernel package, or the folder of another " +
          "image (default: Debian's newest cloud kernel)"
      ),
      Flag.withMetavar("FILE"),
      Flag.optional
    )
  },
  Effect.fn(function*(flags) {
    const { buildImage } = yield* acts
    yield* buildImage(flags)
  })
).pipe(
  Command.withDescription(
    "Make an image out of packages of this host's apt sources. An image never changes: whoever uses one under the same name " +
      "keeps it until it is restarted."
  ),
  Command.withShortDescription("Make an image"),
  Command.withExamples([
    { command: "stoker image build", description: "Debian with all languages, called default" },
    { command: "stoker image build tiny --base minimal", description: "In seconds, for static programs" },
    { command: "stoker image build old --root rootfs.ext4", description: "Of a root that there is already" }
  ])
)

const list = Command.make(
  "list",
  common,
  Effect.fn(function*(flags) {
    const { listImages } = yield* acts
    yield* listImages(flags)
  })
).pipe(Command.withDescription("The images there are"))

const show = Command.make(
  "show",
  { ...common, name: named },
  Effect.fn(function*(flags) {
    const { showImage } = yield* acts
    yield* showImage(flags)
  })
).pipe(Command.withDescription("What is in an image, after checking that it is whole and for this machine"))

const remove = Command.make(
  "remove",
  { ...common, name: named },
  Effect.fn(function*(flags) {
    const { removeImage } = yield* acts
    yield* removeImage(flags)
  })
).pipe(
  Command.withDescription(
    "Take a name away, and the image with its last name. By its identity it goes with all its names. Machines that run keep " +
      "what they have open; a worker that uses it makes no new ones."
  ),
  Command.withShortDescription("Remove an image")
)

export const image = Command.make("image").pipe(
  Command.withDescription(
    "Root file systems and kernels of microVMs, for the classes of the drivers firecracker and qemu. They lie in the state " +
      "directory, which must be the worker's."
  ),
  Command.withShortDescription("Make and look after images of microVMs"),
  Command.withSubcommands([build, list, show, remove])
)
