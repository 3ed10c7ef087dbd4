"""The `tokgen` command.

- `main` - parse the command line and run a verb
- `parsing` - read the settings of a verb
- `settings` - the settings of each verb
- `verbs` - run each verb
- `recipe_files` - list and copy the recipes that come with tokgen
- `completion` - completion in shells
"""
