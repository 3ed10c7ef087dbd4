"""The `tokgen` command.

- `main` - parse the command line and run a verb
- `parsing` - read the settings of a verb
- `model_settings` - settings of `tokgen generate` and `tokgen export-tokens`
- `settings` - the settings of each verb
- `checks` - check files and names before anything is loaded
- `streams` - the standard input and output
- `verbs` - run each verb
- `recipe_files` - list and copy the recipes that come with tokgen
- `completion` - completion in shells
"""
