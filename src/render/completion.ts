/** Completion scripts: each shell asks the program itself, so that plans, runs, jobs and targets are the ones there now. */

/** Shells that scripts exist for. */
export const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;
/** One of {@link SHELLS}. */
export type Shell = (typeof SHELLS)[number];

/** The script to source; the words after `--` are the command line so far, the last one being typed. */
export function completionScript(shell: Shell): string {
  switch (shell) {
    case "bash":
      return BASH;
    case "zsh":
      return ZSH;
    case "fish":
      return FISH;
    case "powershell":
      return POWERSHELL;
  }
}

const BASH = `# holdpoint completion for bash:  source <(holdpoint completion bash)
_holdpoint() {
  local IFS=$'\\n'
  COMPREPLY=($(holdpoint completion words -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _holdpoint holdpoint
`;

const ZSH = `#compdef holdpoint
# holdpoint completion for zsh:  source <(holdpoint completion zsh)
_holdpoint() {
  local -a found
  found=("\${(@f)$(holdpoint completion words -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  [[ -n "\${found[1]}" ]] && compadd -- "\${found[@]}" || _files
}
if [[ "\${funcstack[1]}" == _holdpoint ]]; then
  _holdpoint "$@"
else
  (( \${+functions[compdef]} )) || { autoload -Uz compinit && compinit -i }
  compdef _holdpoint holdpoint
fi
`;

const FISH = `# holdpoint completion for fish:  holdpoint completion fish | source
function __holdpoint_words
  set -l typed (commandline -opc) (commandline -ct)
  holdpoint completion words -- $typed[2..-1] 2>/dev/null
end
complete -c holdpoint -a '(__holdpoint_words)'
`;

const POWERSHELL = `# holdpoint completion for PowerShell:  holdpoint completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName holdpoint -ScriptBlock {
  param($word, $ast, $position)
  $typed = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
  if ($word -eq '') { $typed += '' }
  holdpoint completion words -- @typed 2>$null | ForEach-Object {
    [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
  }
}
`;
