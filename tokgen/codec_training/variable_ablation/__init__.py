"""An ablation of the variable bitrate: surrogates of the mask's gradient, and their sharpness.

- `settings` - settings, conditions and cells
- `run` - the ablation: `run_variable_ablation`
- `measure` - scores of one codec at several bitrates
- `table` - its table
"""
