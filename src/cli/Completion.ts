/**
 * Completion of what only a server knows, functions and ids: wrapped around the scripts that Effect makes of the commands.
 * A script asks `stoker jobs complete -- WORDS`, and falls back on what the commands themselves have.
 */
import { Effect, Option } from "effect"
import { GlobalFlag } from "effect/cli"
import { print } from "./Output.ts"

const bash = `
_stoker_server() {
  if [[ "\${COMP_WORDS[1]}" == jobs && $COMP_CWORD -ge 3 ]]; then
    case "\${COMP_WORDS[2]}" in
      start|status|stop|tail|delete)
        mapfile -t COMPREPLY < <("\${COMP_WORDS[0]}" jobs complete -- "\${COMP_WORDS[@]:2:COMP_CWORD-1}" 2>/dev/null)
        [[ \${#COMPREPLY[@]} -gt 0 ]] && return ;;
    esac
  fi
  _stoker "$@"
}
[[ \${BASH_VERSINFO[0]} -ge 4 ]] && complete -F _stoker_server stoker`

const zsh = `
_stoker_server() {
  if [[ "\${words[2]}" == jobs && $CURRENT -ge 4 && "\${words[3]}" == (start|status|stop|tail|delete) ]]; then
    local -a found
    found=("\${(@f)$("\${words[1]}" jobs complete -- "\${(@)words[3,CURRENT]}" 2>/dev/null)}")
    if [[ -n "\${found[1]}" ]]; then
      compadd -- "\${found[@]}"
      return
    fi
  fi
  _stoker "$@"
}
compdef _stoker_server stoker`

const fish = `
complete -c stoker -f \\
  -n 'string match -qr "^\\S+ jobs (start|status|stop|tail|delete) " -- (commandline -cp)' \\
  -a '(stoker jobs complete -- (commandline -opc)[3..-1] (commandline -ct) 2>/dev/null)'`

const scripts: Readonly<Record<string, string>> = { bash, zsh, fish }

/** `--completions SHELL` */
export const completions: typeof GlobalFlag.Completions = {
  ...GlobalFlag.Completions,
  run: (shell, context) =>
    Effect.andThen(
      GlobalFlag.Completions.run(shell, context),
      Option.match(shell, {
        onNone: () => Effect.void,
        onSome: (name) => scripts[name] === undefined ? Effect.void : Effect.ignore(print(scripts[name]))
      })
    )
}
