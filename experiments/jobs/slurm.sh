#!/bin/bash
# sbatch experiments/jobs/slurm.sh
#
# One sweep on one GPU. Slurm signals two minutes before the time is up; lab3 then ends with 75, and the job asks for its
# place in the queue again under the same id, which is the slot. The run's folder must be on a file system that all
# nodes see.
#SBATCH --job-name=lab3
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lab3-%j.log
set -uo pipefail

srun --kill-on-bad-exit=0 lab3 run vgg16_cifar10 --job --max-attempts 20 --device gpu --threads "${SLURM_CPUS_PER_TASK:-4}"
code=$?
if [ "$code" -eq 75 ] || [ "$code" -eq 74 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
