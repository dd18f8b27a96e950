/** What is mounted where, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)). */

/** Blanks, tabs, newlines and backslashes are written as three octal digits. */
const unescape = (path: string): string =>
  path.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))

/** Mount points at or below `folder`, a real path, in the mounts that `mountinfo` lists. */
export const mountsBelow = (mountinfo: string, folder: string): ReadonlyArray<string> =>
  mountinfo.split("\n")
    .map((line) => unescape(line.split(" ")[4] ?? ""))
    .filter((point) => point === folder || point.startsWith(`${folder}/`))
