"""People judge pictures: a blind questionnaire, the pages that ask it, and what the answers say.

Paper: 4.2, appendix E.
"""
