"""What keeps NNI 3.0's defects away from users; experiment.py is its command line.

before the start    preflight (the list of checks), experiment_file, search_space, algorithms, trial_check
the start           launch (nnictl, one at a time), web_server (its port, on this machine only), loopback.cjs
while it runs       registry (which experiments there are), processes (never by a bare pid),
                    watchdog (the true reason of a failure), tuners (TPE that survives several trials at once)
afterwards          results (what each trial truly ran), results_view (table, CSV, best.json)
                    lost_trials, moved (what a resume needs)
"""
