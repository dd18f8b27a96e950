/**
 * How this code is run, which decides where the files beside it lie: from source (`src/**.ts`), as the package's
 * modules (`dist/lib/**.js`, as in `src`), or from the command's bundle (`dist/*.mjs`, all in one folder).
 */
export const built: "source" | "modules" | "bundle" = import.meta.url.endsWith(".ts")
  ? "source"
  : import.meta.url.endsWith(".js")
  ? "modules"
  : "bundle"
