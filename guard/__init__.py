"""What keeps NNI 3.0's defects away from users; experiment.py is its command line.

before the start    preflight (the list of checks), experiment_file, search_space, algorithms, trial_check
while it runs       manager (processes, never by a bare pid), watchdog (the true reason of a failure), loopback.cjs,
                    tuners (TPE that survives several trials at once)
afterwards          results (what each trial truly ran), results_view (table, CSV, best.json)
"""
