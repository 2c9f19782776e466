"""The parts of report.py: findings reads the results, sections says what they mean, plots and final_test draw and
compute what it takes, web_page and markdown write it down."""
