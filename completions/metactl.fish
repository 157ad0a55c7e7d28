# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_metactl_global_optspecs
    string join \n config= metadb= redis-ca-file= redis-cert-file= redis-key-file= dedupe-effective= release-tag= commit= zot-binary= zot-url= zot-ca-file= zot-auth-file= format= metrics-file= color= q/quiet v/verbose no-progress log-format= jobs= io-concurrency= lock-timeout= rate= timeout= yes state= no-state h/help V/version
end

function __fish_metactl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_metactl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_metactl_using_subcommand
    set -l cmd (__fish_metactl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c metactl -n "__fish_metactl_needs_command" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_needs_command" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_needs_command" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_needs_command" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_needs_command" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_needs_command" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_needs_command" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_needs_command" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_needs_command" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_needs_command" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_needs_command" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_needs_command" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_needs_command" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_needs_command" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_needs_command" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_needs_command" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_needs_command" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_needs_command" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_needs_command" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_needs_command" -s V -l version -d 'Print version'
complete -c metactl -n "__fish_metactl_needs_command" -f -a "stamp" -d 'Show, write or clear the fast-restart stamp'
complete -c metactl -n "__fish_metactl_needs_command" -f -a "walk" -d 'Bring the metaDB up to what storage holds, then stamp it'
complete -c metactl -n "__fish_metactl_needs_command" -f -a "verify" -d 'Find every disagreement between storage and metaDB; writes to neither'
complete -c metactl -n "__fish_metactl_needs_command" -f -a "config" -d 'Look at the registry\'s configuration'
complete -c metactl -n "__fish_metactl_needs_command" -f -a "completions" -d 'Print a completion script'
complete -c metactl -n "__fish_metactl_needs_command" -f -a "man" -d 'Write the manual pages into a directory'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -f -a "show" -d 'Compare the stored stamp with the expected one, and say what zot will do at its next start'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -f -a "write" -d 'Store the expected stamp, so that zot skips its next walk'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and not __fish_seen_subcommand_from show write clear" -f -a "clear" -d 'Remove the stamp, so that zot walks at its next start'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l check -d 'Exit 1 if the stamp is absent or stale'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l force -d 'Do not check first that every repo is recorded'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from write" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand stamp; and __fish_seen_subcommand_from clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l repo -d 'Only repos that match; `*` stops at `/`, `**` does not (repeatable)' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l max-delete -d 'Repos that may be deleted from the metaDB without a question [default: 10 or 10%, whichever is more; never all]' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l force -d 'Read every repo, whatever the stamp and the times say'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l dry-run -d 'Print what would be done, and change nothing'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l prune -d 'Also remove image records that no repo reaches'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l online -d 'Walk a DynamoDB metaDB even though a zot answers that may be at work on it'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l create-tables -d 'Create DynamoDB tables that are missing, as zot does'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l no-stamp -d 'Do not write the stamp, even after a complete walk'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand walk" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l repo -d 'Only repos that match; `*` stops at `/`, `**` does not (repeatable)' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l sample -d 'Read this share of the unchanged repos too, those verified longest ago first' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l limit -d 'Show so many findings, the gravest [default: all; with nagios 20]' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l quick -d 'Compare listings, times, tags and digests only'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l deep -d 'Also rebuild every record from storage, check digests and compare field by field'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l full -d 'Read all repos, whatever earlier runs remember'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand config; and not __fish_seen_subcommand_from show" -f -a "show" -d 'Print the effective storage config (secrets redacted), the stores, the metaDB and the fingerprints'
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand completions" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand completions" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand completions" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c metactl -n "__fish_metactl_using_subcommand man" -l config -d 'The registry\'s own configuration file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l metadb -d 'Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l redis-ca-file -d 'Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system\'s' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l redis-cert-file -d 'Client certificate (PEM) for a Redis metaDB with TLS' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l redis-key-file -d 'Key (PEM) of that certificate' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l dedupe-effective -d 'Whether zot\'s hard-link probe succeeds on its host, if that is another one than this' -r -f -a "on\t'Yes'
off\t'No'"
complete -c metactl -n "__fish_metactl_using_subcommand man" -l release-tag -d 'Release tag of the zot build that will start, for example v2.1.20 (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l commit -d 'Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l zot-binary -d 'Read the build\'s identity from this executable, without running it' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l zot-url -d 'Ask a running zot for its identity' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l zot-ca-file -d 'Trust these certificates (PEM) for --zot-url, instead of the public ones' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l zot-auth-file -d 'Log in to --zot-url with the `user:password` in this file' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l format -d 'Format of the result' -r -f -a "table\t'For people'
json\t'For programs; carries schema_version'
nagios\t'For Nagios and Icinga (stamp show, verify)'
prometheus\t'Prometheus\' text format (stamp show, verify)'"
complete -c metactl -n "__fish_metactl_using_subcommand man" -l metrics-file -d 'Also write the result as Prometheus metrics to this file, atomically' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it'
always\t'Always'
never\t'Never'"
complete -c metactl -n "__fish_metactl_using_subcommand man" -l log-format -d 'Format of log lines' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c metactl -n "__fish_metactl_using_subcommand man" -l jobs -d 'Threads that read, at most; one a processor begins, and the others come where storage makes it wait' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l io-concurrency -d 'Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l lock-timeout -d 'How long to wait for the metaDB\'s lock, for example 30s or 2m' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l rate -d 'Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l timeout -d 'Stop after this time, as if interrupted' -r
complete -c metactl -n "__fish_metactl_using_subcommand man" -l state -d 'File for what metactl remembers between runs' -r -F
complete -c metactl -n "__fish_metactl_using_subcommand man" -s q -l quiet -d 'Print less: -q result and errors, -qq exit code only'
complete -c metactl -n "__fish_metactl_using_subcommand man" -s v -l verbose -d 'Print more: -v what is done, -vv details'
complete -c metactl -n "__fish_metactl_using_subcommand man" -l no-progress -d 'Show no progress'
complete -c metactl -n "__fish_metactl_using_subcommand man" -l yes -d 'Answer yes to the one question there is: whether many repos may be deleted from the metaDB'
complete -c metactl -n "__fish_metactl_using_subcommand man" -l no-state -d 'Remember nothing'
complete -c metactl -n "__fish_metactl_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
